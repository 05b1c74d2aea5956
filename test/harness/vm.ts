/**
 * A machine with firmware, disks, a network card and a serial console: QEMU, without KVM, so that it runs wherever
 * the tests do. What it shows on its console is the test's evidence; nothing is read out of its memory.
 */
import { copyFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { Console } from "./console.ts";
import { Child } from "./process.ts";
import { connectWhenThere, Qmp, type QmpEvent } from "./qmp.ts";
import type { Scope } from "./scope.ts";
import { needTools } from "./tools.ts";
import type { Cable } from "./vm-network.ts";

export type Firmware = "bios" | "uefi" | "secure-boot";

export interface VmDisk {
  /** A raw image. */
  readonly path: string;
  /** What the guest's /dev/disk/by-id shows. */
  readonly serial?: string;
  readonly isUsbStick?: boolean;
  /** What it hangs on where that is not virtio: a SATA port of the board, or a slot of its own. */
  readonly bus?: "ahci" | "nvme";
  /** Every access of that kind to that 512-byte sector, or to any, ends with EIO. */
  readonly failing?: { readonly access: "read" | "write" | "flush"; readonly sector?: number };
}

export interface VmOptions {
  /** x86-64 unless said otherwise. arm64 machines (QEMU's `virt`) need a kernel: they have no firmware here. */
  readonly machine?: keyof typeof EMULATORS;
  readonly firmware?: Firmware;
  readonly memoryMiB: number;
  readonly disks?: readonly VmDisk[];
  readonly cable?: Cable;
  /** Of further network cards, which come after the first: eth1, eth2 ... */
  readonly moreCables?: readonly Cable[];
  /** Started from here instead of by the firmware. */
  readonly kernel?: { readonly kernel: string; readonly initrd: string; readonly commandLine: string };
}

const EMULATORS = { "x86-64": "qemu-system-x86_64", arm64: "qemu-system-aarch64" } as const;
/** What TCG has, AVX2 among it, without what costs time here: five-level page tables, and machines within this one. */
const CPU = "max,la57=off,svm=off";
/** For the command line of x86 kernels, and given to those that are started directly: one that measures its timer on a busy machine panics. */
export const PATIENCE = "no_timer_check";
const OVMF = "/usr/share/OVMF";
const FIRMWARE_FILES = {
  uefi: { code: "OVMF_CODE_4M.fd", variables: "OVMF_VARS_4M.fd" },
  // Microsoft's keys are enrolled, as in machines that are sold.
  "secure-boot": { code: "OVMF_CODE_4M.ms.fd", variables: "OVMF_VARS_4M.ms.fd" },
} as const;
const EIO = 5;

export class Vm {
  /** Events that were waited for and those before them. */
  #eventsSeen = 0;

  private constructor(
    readonly name: string,
    readonly console: Console,
    readonly qmp: Qmp,
    readonly child: Child,
  ) {}

  /** Switches a machine on; the scope switches it off. */
  static async start(scope: Scope, name: string, options: VmOptions): Promise<Vm> {
    const emulator = EMULATORS[options.machine ?? "x86-64"];
    needTools(emulator);
    const folder = scope.tempDir();
    const paths = { serial: join(folder, "serial"), qmp: join(folder, "qmp") };
    const words = [...machineWords(folder, options), ...wiringWords(options), ...controlWords(paths)];
    const child = new Child(scope, [emulator, "-name", name, ...words], {
      prefix: options.cable?.prefix ?? [],
    });
    const [serial, qmp] = await Promise.race([
      Promise.all([connectWhenThere(paths.serial), Qmp.open(paths.qmp)]),
      child.ended.then(() => Promise.reject(new Error("QEMU ended at once"))),
    ]);
    const vm = new Vm(name, new Console(name, serial), qmp, child);
    scope.explain(() => `--- console of ${name}\n${vm.console.tail}`);
    for (const [i, { isOut = false }] of cablesOf(options).entries()) if (isOut) await vm.cableIn(false, i);
    // It was started paused, so that nothing it writes is missed.
    await qmp.execute("cont");
    return vm;
  }

  /** A reset, whether by the guest or by the button. */
  async waitForReset(timeoutMs?: number): Promise<void> {
    await this.#waitForEvent("RESET", timeoutMs);
  }

  /** The guest has powered the machine off. */
  async waitForPowerOff(timeoutMs?: number): Promise<void> {
    await this.#waitForEvent("SHUTDOWN", timeoutMs);
    await this.child.ended;
  }

  /** Keys pressed at once on its keyboard, such as ctrl-alt-delete. */
  async press(keys: string): Promise<void> {
    const codes = keys.split("-").map((data) => ({ type: "qcode", data }));
    await this.qmp.execute("send-key", { keys: codes });
  }

  /** As the plug is pulled. */
  async cutPower(): Promise<void> {
    await this.child.kill();
  }

  /** Plugs the cable of its first card, or of another, in or out. */
  async cableIn(isIn: boolean, card = 0): Promise<void> {
    await this.qmp.execute("set_link", { name: `net${card}`, up: isIn });
  }

  /** The next event of that name after those that were waited for. */
  #waitForEvent(name: string, timeoutMs = 5 * 60_000): Promise<QmpEvent> {
    return new Promise((resolve, reject) => {
      const end = (settle: () => void) => {
        clearTimeout(timer);
        stop();
        settle();
      };
      const fail = (why: string) =>
        end(() => reject(new Error(`${this.name}: no ${name} ${why}. The console's end:\n${this.console.tail}`)));
      const timer = setTimeout(() => fail(`within ${timeoutMs / 1000} s`), timeoutMs);
      const look = () => {
        const at = this.qmp.events.findIndex(({ event }, i) => i >= this.#eventsSeen && event === name);
        if (at < 0) return;
        this.#eventsSeen = at + 1;
        end(() => resolve(this.qmp.events[at]!));
      };
      const stop = this.qmp.listen(look);
      look();
      void this.child.ended.then(() => fail("before QEMU ended"));
    });
  }
}

function machineWords(
  folder: string,
  { machine = "x86-64", firmware = "bios", memoryMiB, kernel }: VmOptions,
): string[] {
  const isSecure = firmware === "secure-boot";
  const board =
    machine === "arm64"
      ? ["-machine", "virt", "-cpu", "cortex-a72"]
      : ["-machine", `q35,smm=${isSecure ? "on" : "off"}`, "-cpu", CPU];
  const direct = kernel ? ["-kernel", kernel.kernel, "-initrd", kernel.initrd] : [];
  const words = kernel
    ? ["-append", machine === "arm64" ? kernel.commandLine : `${kernel.commandLine} ${PATIENCE}`]
    : [];
  return [
    ...[...board, "-accel", "tcg", "-smp", "1", "-m", String(memoryMiB), "-nodefaults", "-nographic", "-S"],
    ...(firmware === "bios" ? [] : firmwareWords(folder, firmware)),
    ...(isSecure ? ["-global", "driver=cfi.pflash01,property=secure,value=on"] : []),
    ...direct,
    ...words,
  ];
}

/** The firmware's code, and variables that are this machine's own. */
function firmwareWords(folder: string, firmware: "uefi" | "secure-boot"): string[] {
  const { code, variables } = FIRMWARE_FILES[firmware];
  const [codePath, variablesPath] = [join(OVMF, code), join(folder, "variables.fd")];
  if (!existsSync(codePath)) throw new Error(`${codePath} is not there: apt-get install ovmf`);
  copyFileSync(join(OVMF, variables), variablesPath);
  return [
    ...["-drive", `if=pflash,unit=0,format=raw,readonly=on,file=${codePath}`],
    ...["-drive", `if=pflash,unit=1,format=raw,file=${variablesPath}`],
  ];
}

function cablesOf({ cable, moreCables = [] }: VmOptions): Cable[] {
  return cable ? [cable, ...moreCables] : [];
}

/** Disks come first in the order of boot: an empty one falls through to the network, a deployed one starts. */
function wiringWords(options: VmOptions): string[] {
  const { machine = "x86-64", firmware = "bios", disks = [] } = options;
  const usb = disks.some(({ isUsbStick }) => isUsbStick) ? ["-device", "qemu-xhci,id=usb"] : [];
  const words = disks.flatMap((disk, i) => [
    ...["-blockdev", JSON.stringify(blockNode(disk, `disk${i}`))],
    ...["-device", deviceWords(disk, i)],
  ]);
  const cables = cablesOf(options);
  // UEFI has a driver and a PXE client of its own; QEMU's option ROM, which is iPXE, stands in for a BIOS card's.
  const rom = firmware === "bios" && machine === "x86-64" ? "" : ",romfile=";
  for (const [i, { netdev, mac, card = "virtio-net-pci" }] of cables.entries()) {
    words.push("-netdev", `${netdev},id=net${i}`);
    words.push("-device", `${card},netdev=net${i},mac=${mac},bootindex=${disks.length + 1 + i}${rom}`);
  }
  if (cables.length === 0) words.push("-nic", "none");
  // OVMF's network stack asks for random numbers.
  return [...usb, ...words, "-device", "virtio-rng-pci"];
}

function deviceWords({ serial, isUsbStick = false, bus, failing }: VmDisk, i: number): string {
  const name = serial === undefined ? "" : `,serial=${serial}`;
  // The board's own AHCI controller has the ports ide.0 to ide.5.
  if (bus === "ahci") return `ide-hd,bus=ide.${i},drive=disk${i},bootindex=${i + 1}${name}`;
  // A namespace without a serial is refused by QEMU.
  if (bus === "nvme") return `nvme,drive=disk${i},bootindex=${i + 1}${name || ",serial=NVME"}`;
  const policy = failing ? ",werror=report,rerror=report" : "";
  if (isUsbStick) return `usb-storage,bus=usb.0,drive=disk${i},bootindex=${i + 1},removable=on${name}`;
  return `virtio-blk-pci,drive=disk${i},bootindex=${i + 1}${name}${policy}`;
}

function blockNode({ path, failing }: VmDisk, name: string): Record<string, unknown> {
  const file = { driver: "file", filename: path, discard: "unmap" };
  const raw = { driver: "raw", file, discard: "unmap", "detect-zeroes": "off" };
  if (!failing) return { ...raw, "node-name": name };
  const { access, sector } = failing;
  const error = { event: "none", iotype: access, errno: EIO, once: false, ...(sector === undefined ? {} : { sector }) };
  return { driver: "blkdebug", image: raw, "inject-error": [error], "node-name": name };
}

function controlWords({ serial, qmp }: { serial: string; qmp: string }): string[] {
  return [
    ...["-chardev", `socket,id=serial,path=${serial},server=on,wait=off`, "-serial", "chardev:serial"],
    ...["-qmp", `unix:${qmp},server=on,wait=off`],
  ];
}
