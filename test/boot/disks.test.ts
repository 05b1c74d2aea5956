/** /sys/block as real machines show it: SATA, NVMe, virtio, eMMC, USB, and all that is no disk. */
import { expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { readDisks } from "../../src/boot/init/disks.ts";
import { findTarget, TargetRefusal } from "../../src/boot/init/find-target.ts";
import { parseTargetRule, type TargetRule } from "../../src/boot/init/target-rule.ts";
import type { Disk } from "../../src/boot/init/disks.ts";
import { scopedTest } from "../harness/scope.ts";

/** Puts a disk below `devices` and links it, as sysfs does. */
function put(sys: string, name: string, where: string, files: Record<string, string | Uint8Array>): void {
  const folder = join(sys, "devices", where, "block", name);
  for (const [path, content] of Object.entries({ ro: "0\n", removable: "0\n", ...files })) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
  mkdirSync(join(sys, "block"), { recursive: true });
  symlinkSync(join("../devices", where, "block", name), join(sys, "block", name));
}

/** VPD page 80h of that serial, padded as drives do. */
function vpd80(serial: string): Uint8Array {
  return Buffer.concat([Buffer.from([0, 0x80, 0, 20]), Buffer.from(serial.padStart(20))]);
}

scopedTest("what each kind of disk says of itself", async (scope) => {
  const sys = scope.tempDir();
  put(sys, "sda", "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0", {
    size: "468862128\n",
    "queue/logical_block_size": "512\n",
    "queue/rotational": "0\n",
    "device/model": "Samsung SSD 860 \n",
    "device/vendor": "ATA     \n",
    "device/wwid": "naa.5002538e40a1b2c3\n",
    "device/vpd_pg80": vpd80("S3Z8NB0K123456A"),
  });
  put(sys, "sdb", "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0", {
    size: "1953525168\n",
    "queue/logical_block_size": "4096\n",
    "queue/rotational": "1\n",
    "device/model": "Elements 25A2   \n",
  });
  put(sys, "nvme0n1", "pci0000:00/0000:00:1d.0/0000:01:00.0/nvme/nvme0", {
    size: "1000215216\n",
    "queue/logical_block_size": "512\n",
    "queue/rotational": "0\n",
    "device/model": "WDC PC SN730 SDBQNTY-512G-1001          \n",
    "device/serial": "205020800123        \n",
    wwid: "eui.e8238fa6bf530001001b448b4a2d9f11\n",
  });
  put(sys, "nvme1n1", "virtual/nvme-fabrics/ctl/nvme1", {
    size: "91440\n",
    "device/model": "diskswarm image\n",
    "device/subsysnqn": `nqn.2026-11.diskswarm:image:${"0a".repeat(32)}\n`,
  });
  put(sys, "nvme0c0n1", "virtual/nvme-subsystem/nvme0", { size: "1000215216\n", hidden: "1\n" });
  put(sys, "vda", "pci0000:00/0000:00:03.0/virtio1", {
    size: "20480\n",
    ro: "1\n",
    serial: "disk-7\n",
    "device/vendor": "0x1af4\n",
  });
  put(sys, "mmcblk0", "platform/mmc/mmc0:0001", {
    size: "61071360\n",
    "device/name": "DF4032\n",
    "device/serial": "0x1a2b3c4d\n",
    "device/type": "MMC\n",
  });
  put(sys, "mmcblk1", "platform/mmc/mmc1:aaaa", {
    size: "61071360\n",
    "device/type": "SD\n",
    "device/name": "SC32G\n",
  });
  put(sys, "cciss!c0d0", "pci0000:00/0000:00:05.0", { size: "2048\n", "device/model": "evil\u001b[31m\u0007model\n" });
  for (const name of ["loop0", "ram1", "zram0", "sr0", "fd0", "md127", "dm-0", "nbd0", "mmcblk0boot0", "mmcblk0rpmb"])
    put(sys, name, "virtual", { size: "1000\n" });

  const disks = readDisks(sys, (path) => (path === "/dev/sda" ? "it is mounted on /" : null));
  expect(disks.map(({ path }) => path)).toEqual([
    "/dev/cciss/c0d0",
    "/dev/mmcblk0",
    "/dev/mmcblk1",
    "/dev/nvme0n1",
    "/dev/sda",
    "/dev/sdb",
    "/dev/vda",
  ]);
  const [raid, emmc, card, nvme, sata, usb, virtio] = disks as [Disk, Disk, Disk, Disk, Disk, Disk, Disk];
  expect(raid.model).toBe("evil [31m model");
  expect(emmc).toMatchObject({ model: "DF4032", serial: "0x1a2b3c4d", removable: false });
  expect(card.removable).toBe(true);
  expect(nvme).toMatchObject({
    model: "WDC PC SN730 SDBQNTY-512G-1001",
    serial: "205020800123",
    wwn: "e8238fa6bf530001001b448b4a2d9f11",
    sizeBytes: 512_110_190_592,
  });
  expect(sata).toMatchObject({
    model: "Samsung SSD 860",
    serial: "S3Z8NB0K123456A",
    wwn: "5002538e40a1b2c3",
    sizeBytes: 240_057_409_536,
    removable: false,
    rotational: false,
    use: "it is mounted on /",
  });
  expect(usb).toMatchObject({ removable: true, rotational: true, sectorBytes: 4096, use: null });
  expect(virtio).toMatchObject({ readOnly: true, serial: "disk-7", model: "", removable: false });
});

test("without sysfs there is no disk", () => {
  expect(readDisks("/nowhere")).toEqual([]);
});

const FITS = { diskBytes: 1000, whyNot: ({ sizeBytes }: Disk) => (sizeBytes < 1000 ? "it is too small" : null) };
const TIMES = { limitMs: 200, settleMs: 100, signal: new AbortController().signal, tell: () => undefined };
const rule = (text: string) => parseTargetRule(text) as TargetRule;
const disk = (path: string, sizeBytes: number): Disk => ({
  path,
  sizeBytes,
  sectorBytes: 512,
  model: "",
  serial: path,
  wwn: "",
  readOnly: false,
  removable: false,
  rotational: false,
  use: null,
});

/** Shows one list after the other, a look each; the last stays. */
function appearing(...lists: Disk[][]): () => Disk[] {
  return () => (lists.length > 1 ? lists.shift()! : lists[0]!);
}

test("auto waits until no disk has come for a while: the smallest may come last", async () => {
  const read = appearing([disk("/dev/a", 9000)], [disk("/dev/a", 9000)], [disk("/dev/a", 9000), disk("/dev/b", 5000)]);
  // Two looks pass before the second disk is there, so it must not settle before.
  expect(await findTarget({ ...TIMES, settleMs: 800, rule: rule("auto"), fit: FITS, read })).toMatchObject({
    path: "/dev/b",
  });
});

test("a disk that is named is taken when it appears", async () => {
  const told: string[] = [];
  const read = appearing([], [disk("/dev/a", 9000), disk("/dev/b", 9000)]);
  const search = { ...TIMES, settleMs: 60_000, limitMs: 60_000, tell: (line: string) => void told.push(line) };
  expect(await findTarget({ ...search, rule: rule("serial=/DEV/B"), fit: FITS, read })).toMatchObject({
    path: "/dev/b",
  });
  expect(told).toEqual(["waiting for a disk that meets serial=/DEV/B"]);
});

test("when the time is up the refusal has the table", async () => {
  const read = () => [disk("/dev/a", 10)];
  const failure = await findTarget({ ...TIMES, rule: rule("auto"), fit: FITS, read }).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(TargetRefusal);
  expect(failure).toMatchObject({ exitCode: 4, code: "target-none" });
  expect((failure as TargetRefusal).table.join("\n")).toMatch(/\/dev\/a .*too small/);
  const two = () => [disk("/dev/a", 5000), disk("/dev/b", 5000)];
  const other = await findTarget({ ...TIMES, rule: rule("auto"), fit: FITS, read: two }).catch(
    (error: unknown) => error,
  );
  expect(other).toMatchObject({ exitCode: 4, code: "target-ambiguous" });
});

test("a signal ends the wait", async () => {
  const controller = new AbortController();
  controller.abort();
  const search = findTarget({ ...TIMES, signal: controller.signal, rule: rule("auto"), fit: FITS, read: () => [] });
  await expect(search).rejects.toMatchObject({ exitCode: 130 });
});
