/** The whole way, unattended: four machines with empty disks are switched on, and end at the login of what was deployed. */
import { beforeAll, describe, expect } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { capture } from "../harness/diskswarm.ts";
import { sparseFile } from "../harness/image.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { debianDisk } from "../harness/vm-os.ts";
import { bootBeforehand } from "../harness/vm-boot.ts";
import { Room } from "../harness/vm-room.ts";
import type { Firmware, Vm } from "../harness/vm.ts";

const TIMEOUT_MS = 18 * 60_000;
const STEP_MS = 10 * 60_000;
const MEMORY_MIB = 512;
const MACHINES: readonly Firmware[] = ["bios", "uefi", "bios", "uefi"];
/** What is to be seen on the console, in this order; the name of each is the phase that ends with it. */
const STEPS: readonly (readonly [string, RegExp])[] = [
  ["firmware, DHCP, TFTP", /using (undionly|SNP) on /],
  ["kernel and initramfs", /diskswarm: eth0 has /],
  ["plan and target", /the target is /],
  ["deployment", /done and flushed/],
  ["serving others", /reboot follows/],
  ["firmware, GRUB", /Linux version/],
  ["system", /([\w-]+) login: /],
];

const nameOf = (index: number) => `lab-${index + 1}`;

/** Goes along with a machine to its login. Returns the name that it shows there, and when each step was over, in seconds. */
async function follow(vm: Vm): Promise<{ login: string; seconds: number[] }> {
  const seconds: number[] = [];
  let login = "";
  for (const [, pattern] of STEPS) {
    const found = await vm.console.waitFor(pattern, {
      timeoutMs: STEP_MS,
      unless: /Kernel panic|this machine waits until/,
    });
    login = found[1] ?? "";
    seconds.push(vm.console.seconds);
  }
  return { login, seconds };
}

function timeLine(times: readonly (readonly number[])[]): string {
  const rows = STEPS.map(([step], i) => {
    const cells = times.map((seconds) => `${(seconds[i]! - (seconds[i - 1] ?? 0)).toFixed(0)} s`.padStart(7));
    return `  ${step.padEnd(22)}${cells.join("")}`;
  });
  const total = times.map((seconds) => `${seconds.at(-1)!.toFixed(0)} s`.padStart(7));
  const head = MACHINES.map((firmware) => firmware.padStart(7));
  return [`  ${"".padEnd(22)}${head.join("")}`, ...rows, `  ${"all".padEnd(22)}${total.join("")}`].join("\n");
}

/** In two stages: iPXE of a BIOS takes minutes for what a kernel fetches in a moment. */
async function roomWithDebian(scope: Scope): Promise<Room> {
  const golden = debianDisk();
  const torrent = join(scope.tempDir(), "debian.torrent");
  await capture(scope, golden, torrent, "--extents", "partclone");
  const hosts = MACHINES.map((_, i) => `${Room.macOf(i + 1)},${nameOf(i)}`);
  const table = join(scope.tempDir(), "hosts.csv");
  writeFileSync(table, `mac,hostname\n${hosts.join("\n")}\n`);
  const room = await Room.open(scope, {
    stages: "two-stage",
    images: [`${torrent}=${golden}`],
    bootFiles: { "hosts.csv": table },
  });
  await room.serve("--node-option", `personalize=${room.url}/boot/hosts.csv`);
  return room;
}

bootBeforehand(["two-stage"]);
if (isRoot) beforeAll(() => void debianDisk(), TIMEOUT_MS);

describe.skipIf(!isRoot)("four machines with empty disks", () => {
  scopedTest(
    "boot from the network by BIOS and UEFI, are deployed from each other, reboot, and log in under their own names",
    async (scope) => {
      const room = await roomWithDebian(scope);
      const { size } = Bun.file(debianDisk());
      const machines = MACHINES.map(async (firmware, i) => {
        const disk = join(scope.tempDir(), "disk");
        sparseFile(disk, size);
        const disks = [{ path: disk, serial: `D${i + 1}` }];
        return follow(await room.switchOn(nameOf(i), { firmware, memoryMiB: MEMORY_MIB, disks }));
      });
      const ended = await Promise.all(machines);
      console.log(timeLine(ended.map(({ seconds }) => seconds)));
      expect(ended.map(({ login }) => login)).toEqual(MACHINES.map((_, i) => nameOf(i)));
      const phases = MACHINES.map((_, i) => room.nodes().get(Room.macOf(i + 1))?.phase);
      expect(phases).toEqual(MACHINES.map(() => "rebooting"));
    },
    TIMEOUT_MS,
  );
});
