/**
 * Virtual disks (qcow2, VMDK, VHDX, VDI, VHD) by qemu's own tools. A disk is shown as the raw file that it stands for,
 * by qemu-storage-daemon over FUSE: capture, survey and seeders read that like any image file, holes included, and no
 * copy is made. Where that cannot be had, qemu-img converts it into a raw file.
 *
 * Nobody may be writing to the image (qemu's own locks tell) and its tables must be sound: qemu reads what lies beyond
 * the end of a file that was cut off as zeros, without a word.
 */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { ExitCode, Failure } from "../../errors.ts";
import { reasonOf, runToolForText, ScratchFile, throwIfTooOld, type Tool, type ToolRun } from "../external-tool.ts";
import { Interrupted } from "../work-thread.ts";
import type { DiskDriver } from "./format.ts";

const QEMU_IMG: Tool = { program: "qemu-img", package: "qemu-utils", isNeeded: true };
const DAEMON = "qemu-storage-daemon";
/** Ends the daemon when this process is gone, however it went. */
const GUARD = ["setpriv", "--pdeathsig", "TERM"];
/** qemu-img check(1), EXIT STATUS: leaked clusters waste room and are no damage; some formats cannot be checked. */
const EXIT_LEAKED = 3;
const EXIT_NOT_CHECKED = 63;
/** A daemon that is neither ready nor ended by then hangs; ready it is within a tenth of a second. */
const READY_MS = 30_000;
const POLL_MS = 10;

export interface VirtualDisk {
  /** Absolute, symbolic links resolved. */
  readonly path: string;
  readonly driver: DiskDriver;
  /** Of the disk inside. */
  readonly sizeBytes: number;
  /** Its own file and those that it builds on. */
  readonly layers: readonly string[];
}

/** A virtual disk as a raw file that cannot be written to. */
export interface DiskView {
  readonly path: string;
  /** Ends the view; nobody may be reading it. */
  close(): Promise<void>;
}

/** Looks at an image and what it builds on. Throws Failure (exit 1) for what cannot be read as a disk, Interrupted. */
export async function inspectVirtualDisk(path: string, driver: DiskDriver, signal: AbortSignal): Promise<VirtualDisk> {
  const words = ["info", "--output=json", "--backing-chain", "-f", driver, path];
  const run = await runToolForText(QEMU_IMG, words, signal);
  if (run.exitCode !== 0) {
    throwIfTooOld(QEMU_IMG, run);
    throw cannotOpen(path, driver, run);
  }
  const layers = parseInfo(run.stdout);
  if (layers === null) throw failure("image-open", `what qemu-img says of ${path} makes no sense`);
  for (const layer of layers) {
    if (layer.isEncrypted)
      throw failure("image-encrypted", `${layer.path} is encrypted: decrypt it first, with qemu-img convert`);
    await check(layer, signal);
  }
  return { path, driver, sizeBytes: layers[0].sizeBytes, layers: layers.map((layer) => layer.path) };
}

/**
 * Shows it as a raw file. The reason, as words, where this machine cannot do that. Throws Failure where the disk itself
 * cannot be opened, Interrupted.
 */
export async function openDiskView(disk: VirtualDisk, signal: AbortSignal): Promise<DiskView | string> {
  const program = Bun.which(DAEMON);
  if (program === null) return `${DAEMON} is not installed (package qemu-utils or qemu-system-common)`;
  const folder = mkdtempSync(join(tmpdir(), "diskswarm-view-"));
  const path = join(folder, basename(disk.path));
  writeFileSync(path, "");
  const errors = new ScratchFile();
  const guard = Bun.which(GUARD[0]) === null ? [] : GUARD;
  // In a session of its own: Ctrl-C must not take the disk away from those who still read it.
  const daemon = Bun.spawn([...guard, program, ...daemonWords(disk, path)], {
    stdio: ["ignore", "ignore", errors.fd],
    env: { ...process.env, LC_ALL: "C" },
    detached: true,
  });
  const close = async () => {
    daemon.kill();
    await daemon.exited;
    errors.close();
    rmSync(folder, { recursive: true });
  };
  try {
    const isReady = await untilReady(daemon, path, disk.sizeBytes, signal);
    if (isReady) return { path, close };
    const run = { exitCode: daemon.exitCode ?? 128, stderr: errors.text() };
    await close();
    if (/fuse|mountpoint/i.test(run.stderr)) return wordsOf(run);
    throw cannotOpen(disk.path, disk.driver, run);
  } catch (error) {
    if (daemon.exitCode === null) await close();
    throw error;
  }
}

/** Writes the disk's content into a file, sparse. Throws Failure, Interrupted. */
export async function convertDisk(disk: VirtualDisk, rawPath: string, signal: AbortSignal): Promise<void> {
  const words = ["convert", "-f", disk.driver, "-O", "raw", "-S", "4k", disk.path, rawPath];
  const run = await runToolForText(QEMU_IMG, words, signal);
  if (run.exitCode !== 0) throw failure("image-open", `cannot convert ${disk.path}: ${wordsOf(run)}`);
}

function daemonWords(disk: VirtualDisk, mountpoint: string): string[] {
  const file = { driver: "file", filename: disk.path, "read-only": true };
  const node = { driver: disk.driver, "node-name": "disk", "read-only": true, file };
  const view = { type: "fuse", id: "view", "node-name": "disk", mountpoint, writable: false };
  return ["--blockdev", JSON.stringify(node), "--export", JSON.stringify(view)];
}

/** False: the daemon ended by itself. */
async function untilReady(
  daemon: Bun.Subprocess,
  path: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<boolean> {
  const end = performance.now() + READY_MS;
  while (daemon.exitCode === null && daemon.signalCode === null) {
    if (signal.aborted) throw new Interrupted("stopped");
    if (statSync(path).size === sizeBytes) return true;
    if (performance.now() > end) throw failure("image-open", `${DAEMON} does not show ${path} within 30 seconds`);
    await Bun.sleep(POLL_MS);
  }
  return false;
}

interface Layer {
  readonly path: string;
  readonly driver: string;
  readonly sizeBytes: number;
  readonly isEncrypted: boolean;
}

/** The image first, then what it builds on. */
function parseInfo(text: string): Layer[] | null {
  try {
    const chain = JSON.parse(text) as Record<string, unknown>[];
    const layers = chain.map((entry) => ({
      path: String(entry.filename),
      driver: String(entry.format),
      sizeBytes: Number(entry["virtual-size"]),
      isEncrypted: entry.encrypted === true,
    }));
    return layers.length > 0 && layers.every(({ sizeBytes }) => Number.isSafeInteger(sizeBytes)) ? layers : null;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return null;
    throw error;
  }
}

async function check({ path, driver }: Layer, signal: AbortSignal): Promise<void> {
  if (driver === "raw") return;
  const run = await runToolForText(QEMU_IMG, ["check", "-f", driver, path], signal);
  const isSound = run.exitCode === 0 || run.exitCode === EXIT_LEAKED || run.exitCode === EXIT_NOT_CHECKED;
  if (isSound && !(driver === "vdi" && isVdiCutOff(path))) return;
  const isDamaged = isSound || run.exitCode === 2 || /points after EOF|truncated/i.test(run.stderr);
  throw failure(
    isDamaged ? "image-damaged" : "image-open",
    isDamaged
      ? `${path} is damaged or cut off: copy it again, or repair it with qemu-img check -r all`
      : `cannot check ${path}: ${wordsOf(run)}`,
  );
}

/**
 * qemu-img does not look where the blocks of a VDI end. Its header (version 1.1) has at 0x158 where the first one is, at
 * 0x178 how long they are, at 0x184 how many there are.
 */
function isVdiCutOff(path: string): boolean {
  const header = Buffer.alloc(0x188);
  const fd = openSync(path, "r");
  try {
    if (readSync(fd, header, 0, header.length, 0) < header.length) return true;
  } finally {
    closeSync(fd);
  }
  const endBytes = header.readUInt32LE(0x158) + header.readUInt32LE(0x178) * header.readUInt32LE(0x184);
  return statSync(path).size < endBytes;
}

function cannotOpen(path: string, driver: DiskDriver, run: ToolRun): Failure {
  if (/Failed to get .* lock/.test(run.stderr))
    return failure("image-busy", `${path} is being written to: end the virtual machine that runs from it`);
  return failure("image-open", `cannot open ${path} as ${driver}: ${wordsOf(run)}`);
}

/** qemu's last line without the program's name. */
function wordsOf(run: ToolRun): string {
  return reasonOf(run).replace(/^(?:qemu-img|qemu-storage-daemon): /, "");
}

function failure(code: string, message: string): Failure {
  return new Failure(ExitCode.failed, code, message);
}
