/** What nodes and servers say to each other, and what a machine says of itself. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { leaseServers } from "../../src/boot/init/ask-plan.ts";
import { type Machine, parseEnvironmentFile, readMachine } from "../../src/boot/init/machine.ts";
import { formatNodeReport, isNodeId, parseNodeReport } from "../../src/boot/init/node-report.ts";
import { parsePlan } from "../../src/boot/init/plan.ts";
import { scopedTest } from "../harness/scope.ts";

const encode = (value: unknown) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
const PLAN = { version: 1, torrent: "http://10.0.0.1:6969/torrents/lab.torrent" };

describe("plan", () => {
  test("with nothing but a torrent, and with everything", () => {
    expect(parsePlan(encode(PLAN))).toEqual({ torrent: PLAN.torrent, target: null, after: null, options: {} });
    const full = { ...PLAN, target: "auto,size>=100G", after: "poweroff", options: { memory: "32M", verify: "" } };
    expect(parsePlan(encode(full))).toMatchObject({
      target: { auto: true },
      after: "poweroff",
      options: { memory: "32M", verify: "" },
    });
  });

  const wrong: readonly [unknown, RegExp][] = [
    ["", /not JSON/],
    ["<html>", /not JSON/],
    ["[]", /no JSON object/],
    ["null", /no JSON object/],
    [{ ...PLAN, version: 2 }, /version is 2/],
    [{ torrent: PLAN.torrent }, /version is missing/],
    [{ version: 1 }, /torrent is missing/],
    [{ ...PLAN, torrent: "file:///etc/passwd" }, /no http/],
    [{ ...PLAN, torrent: ["http://x"] }, /no http/],
    [{ ...PLAN, torrent: `http://${"x".repeat(9000)}` }, /no http/],
    [{ ...PLAN, Target: "auto" }, /key "Target"/],
    [{ ...PLAN, target: "sda" }, /its target: "sda" is no target rule/],
    [{ ...PLAN, target: null }, /target is null/],
    [{ ...PLAN, after: "explode" }, /after is "explode"/],
    [{ ...PLAN, options: [] }, /options are no JSON object/],
    [{ ...PLAN, options: { memory: 32 } }, /option "memory" is 32/],
    [{ ...PLAN, options: { "Me mory": "1" } }, /option "Me mory"/],
    [{ ...PLAN, options: { name: "a\nb" } }, /option "name" is "a\\nb"/],
    [
      {
        ...PLAN,
        options: Object.fromEntries(
          Array.from({ length: 65 }, (_, n) => [`o${"x".repeat(n % 30)}`, ""]).map(([k, v], n) => [
            `a${String.fromCharCode(97 + (n % 26))}${String.fromCharCode(97 + Math.floor(n / 26))}${k}`.replace(
              /[^a-z]/g,
              "",
            ),
            v,
          ]),
        ),
      },
      /more than 64/,
    ],
    [Buffer.alloc(70_000, 0x20), /65536 are the most/],
    [Buffer.from([0x22, 0xff, 0x22]), /not JSON/],
  ];
  for (const [value, problem] of wrong)
    test(`refused: ${problem}`, () => {
      expect(parsePlan(Buffer.isBuffer(value) ? value : encode(value))).toMatch(problem);
    });

  test("cut anywhere it is refused", () => {
    const whole = encode(PLAN);
    for (let length = 0; length < whole.length; length++) expect(parsePlan(whole.subarray(0, length))).toBeString();
  });
});

describe("report", () => {
  test("comes back as it was sent, cut and cleaned", () => {
    const report = {
      phase: "failed",
      code: "disk-fault",
      message: `write\n\u001b[31m/dev/sda ${"x".repeat(600)}`,
      bytesDone: 5,
    } as const;
    const read = parseNodeReport(encode(formatNodeReport(report)));
    expect(read).toMatchObject({ phase: "failed", code: "disk-fault", bytesDone: 5 });
    expect(read!.message).toStartWith("write [31m/dev/sda xxx");
    expect(read!.message).toHaveLength(500);
  });
  test("what is not known is dropped, what is of the wrong type too", () => {
    expect(
      parseNodeReport(encode({ phase: "progress", bytesDone: -1, bytesTotal: "x", peers: 3, target: 7, mood: "good" })),
    ).toEqual({ phase: "progress", peers: 3 });
  });
  test("what is no report", () => {
    for (const value of ["", "null", "[]", '"x"', {}, { phase: "hungry" }, { phase: 1 }, "x".repeat(9000)])
      expect(parseNodeReport(encode(value))).toBeNull();
  });
  test("the longest report passes the reader's limit", () => {
    const long = "\u{10ffff}漢".repeat(2000);
    const text = formatNodeReport({
      phase: "failed",
      serial: long,
      product: long,
      version: long,
      address: long,
      image: long,
      target: long,
      message: long,
      code: long,
    });
    expect(parseNodeReport(encode(text))).not.toBeNull();
  });
  test("ids", () => {
    for (const id of ["52:54:00:12:34:56", "S3Z8NB0K", "a"]) expect(isNodeId(id)).toBe(true);
    for (const id of ["", "../x", "a b", ":x", "x".repeat(65), "a/b", "a\n"]) expect(isNodeId(id)).toBe(false);
  });
});

test("files of KEY='value' lines, as a shell reads them", () => {
  const text = `# a comment
A='one two'
B="quo\\"ted"
C=bare
D='it'\\''s'
E=
F=$(reboot)
G=\`reboot\`
H="$X"
bad line
1X=y
I='open
A2=x; reboot`;
  expect([...parseEnvironmentFile(text)]).toEqual([
    ["A", "one two"],
    ["B", 'quo"ted'],
    ["C", "bare"],
    ["D", "it's"],
    ["E", ""],
  ]);
});

describe("machine", () => {
  function machine(
    scope: { tempDir(): string },
    files: Record<string, string>,
    bootMac: string | null = null,
  ): Machine {
    const root = scope.tempDir();
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), content);
    }
    return readMachine(bootMac, root);
  }
  const NET = {
    "sys/class/net/lo/type": "772\n",
    "sys/class/net/lo/address": "00:00:00:00:00:00\n",
    "sys/class/net/eth0/type": "1\n",
    "sys/class/net/eth0/address": "52:54:00:00:00:01\n",
    "sys/class/net/eth0/operstate": "down\n",
    "sys/class/net/eth1/type": "1\n",
    "sys/class/net/eth1/address": "52:54:00:00:00:02\n",
    "sys/class/net/eth1/operstate": "up\n",
  };
  const DMI = {
    "sys/class/dmi/id/product_serial": "PF1ABC23\n",
    "sys/class/dmi/id/sys_vendor": "LENOVO\n",
    "sys/class/dmi/id/product_name": "20N2\n",
  };

  scopedTest("a lease of our own initramfs", async (scope) => {
    const lease =
      "INTERFACE='eth0'\nMAC='52:54:00:00:00:01'\nADDRESS='10.0.0.7'\nNEXT_SERVER='10.0.0.1'\nBOOT_FILE='http://10.0.0.2:6969/boot.ipxe'\n";
    const found = machine(scope, { ...NET, ...DMI, "run/diskswarm/network.env": lease });
    expect(found).toEqual({
      id: "52:54:00:00:00:01",
      mac: "52:54:00:00:00:01",
      serial: "PF1ABC23",
      product: "LENOVO 20N2",
      address: "10.0.0.7",
      nextServer: "10.0.0.1",
      bootFile: "http://10.0.0.2:6969/boot.ipxe",
    });
    expect(leaseServers(found)).toEqual(["http://10.0.0.2:6969", "http://10.0.0.1:6969"]);
  });

  scopedTest("klibc's, and BOOTIF before everything", async (scope) => {
    const conf = "DEVICE='eth1'\nPROTO='dhcp'\nIPV4ADDR='10.0.0.8'\nROOTSERVER='0.0.0.0'\nfilename='pxelinux.0'\n";
    const found = machine(scope, { ...NET, "run/net-eth1.conf": conf }, "52:54:00:00:00:09");
    expect(found).toMatchObject({
      mac: "52:54:00:00:00:09",
      address: "10.0.0.8",
      nextServer: null,
      bootFile: "pxelinux.0",
    });
    expect(leaseServers(found)).toEqual([]);
  });

  scopedTest("without a lease the interface that is up, without any the serial", async (scope) => {
    expect(machine(scope, NET).mac).toBe("52:54:00:00:00:02");
    expect(machine(scope, DMI)).toMatchObject({ id: "pf1abc23", mac: null });
    expect(machine(scope, { "sys/class/dmi/id/product_serial": "To Be Filled By O.E.M.\n" })).toMatchObject({
      id: "unknown",
      serial: null,
    });
    expect(
      machine(scope, {
        "proc/device-tree/serial-number": "10000000abcdef\0",
        "proc/device-tree/model": "Raspberry Pi 4\0",
      }),
    ).toMatchObject({ id: "10000000abcdef", product: "Raspberry Pi 4" });
  });
});
