/** What is seen of a disk before its machine is rebooted, on real tables and filesystems. Nothing here touches firmware. */
import { describe, expect, test } from "bun:test";
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { checkBoot, hasBootCode } from "../../src/boot/init/boot-check.ts";
import { findKernel } from "../../src/boot/init/find-kernel.ts";
import { lookThrough } from "../../src/boot/init/look-inside.ts";
import { targetDisk } from "../../src/fit/target-disk.ts";
import { loopDevice } from "../harness/loop.ts";
import { run } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";

const DISK_BYTES = 64 * 1024 * 1024;
const ESP_AT = 2048;
const ROOT_AT = 34_816;

test("boot code is code before a signature", () => {
  const sector = new Uint8Array(512);
  expect(hasBootCode(sector)).toBe(false);
  sector.set([0x55, 0xaa], 510);
  expect(hasBootCode(sector)).toBe(false);
  // The disk's signature and its table are no code.
  sector.fill(1, 440, 510);
  expect(hasBootCode(sector)).toBe(false);
  sector[439] = 1;
  expect(hasBootCode(sector)).toBe(true);
  sector[511] = 0;
  expect(hasBootCode(sector)).toBe(false);
  expect(hasBootCode(sector.subarray(0, 100))).toBe(false);
});

/**
 * A disk with an EFI system partition and a root that hold these files. Both are ext4: the kernel that tests run on need
 * not know FAT, and names are looked for in the same way. test/vm has it with FAT.
 */
function gptDisk(scope: Scope, espFiles: readonly string[], rootFiles: Readonly<Record<string, string>> = {}): string {
  needTools("sfdisk", "mkfs.ext4");
  const { path, backingPath } = loopDevice(scope, DISK_BYTES);
  const table = `label: gpt\\nstart=${ESP_AT}, size=32768, type=uefi\\nstart=${ROOT_AT}, size=90000, type=linux\\n`;
  run(["sh", "-c", `printf '${table}' | sfdisk --quiet --no-reread ${path}`]);
  makeFilesystem(scope, backingPath, ESP_AT, "16384k", Object.fromEntries(espFiles.map((file) => [file, ""])));
  makeFilesystem(scope, backingPath, ROOT_AT, "45000k", rootFiles);
  return path;
}

function makeFilesystem(scope: Scope, disk: string, sector: number, size: string, files: Record<string, string>): void {
  const folder = scope.tempDir();
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), text);
  }
  run(["mkfs.ext4", "-q", "-d", folder, "-E", `offset=${sector * 512}`, disk, size]);
}

const check = async (path: string, isUefi: boolean) => checkBoot(targetDisk(path), isUefi);

describe.skipIf(!isRoot)("a disk", () => {
  scopedTest("that UEFI starts by itself", async (scope) => {
    const path = gptDisk(scope, ["EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/BOOTAA64.EFI", "EFI/debian/grubx64.efi"]);
    expect(await check(path, true)).toMatchObject({ problem: null, note: expect.stringMatching(/\\EFI\\BOOT\\BOOT/) });
    // Its protective MBR has no code: a BIOS does not start it.
    expect((await check(path, false)).problem).toMatch(/no boot code in its first sector/);
  });

  scopedTest("whose loader needs an entry, where firmware keeps none", async (scope) => {
    const path = gptDisk(scope, ["EFI/debian/shimx64.efi", "EFI/debian/shimaa64.efi"]);
    expect((await check(path, true)).problem).toMatch(
      /no boot entry for \\EFI\\debian\\shim\w+\.efi .*cannot be reached/,
    );
  });

  scopedTest("without a loader, without an EFI system partition, without a table", async (scope) => {
    expect((await check(gptDisk(scope, ["EFI/x/readme"]), true)).problem).toMatch(/has no loader for this machine/);
    const { path } = loopDevice(scope, DISK_BYTES);
    expect((await check(path, true)).problem).toMatch(/has no EFI system partition/);
    expect((await check(path, false)).problem).toMatch(/no boot code/);
    run(["sh", "-c", `printf 'label: dos\\n2048,,83\\n' | sfdisk --quiet --no-reread ${path}`]);
    expect((await check(path, true)).problem).toMatch(/has no EFI system partition/);
    const fd = openSync(path, "r+");
    writeSync(fd, Uint8Array.of(0xeb, 0x63), 0, 2, 0);
    closeSync(fd);
    expect(await check(path, false)).toEqual({ problem: null, note: null });
  });

  scopedTest("is looked through for the kernel that its loader would start", async (scope) => {
    const path = gptDisk(scope, ["EFI/debian/grub.cfg"], {
      "boot/vmlinuz": "",
      "boot/grub/grub.cfg": "menuentry 'A' {\n linux /boot/vmlinuz root=UUID=1 ro\n}\n",
      "etc/fstab": "",
    });
    const problems: string[] = [];
    const found = await lookThrough(targetDisk(path), problems, ({ files, name, partUuid }) => {
      const kernel = findKernel(files, partUuid);
      return typeof kernel === "string" ? null : { name, ...kernel, at: files.pathOf(kernel.kernel) };
    });
    expect(found).toMatchObject({ name: "partition 2", kernel: "boot/vmlinuz", commandLine: "root=UUID=1 ro" });
    expect(found!.at).toMatch(new RegExp(`^/proc/${process.pid}/fd/\\d+/\\./boot/vmlinuz$`));
    // Nothing is left mounted, or the disk could not be written again.
    run(["sh", "-c", `! grep -q ${path} /proc/self/mounts`]);
  });
});
