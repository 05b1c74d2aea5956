import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as abi from "../../src/kernel/abi.ts";
import * as libc from "../../src/kernel/libc.ts";
import { BACKENDS, fillPattern, type Harness, withHarness } from "./harness.ts";

const { EBADF, EIO, ENOSPC, EOPNOTSUPP } = libc.Errno;
const MiB = 1 << 20;

/** Where the temporary directory takes no O_DIRECT, the test of it has nothing to say. */
const canDirect = (() => {
  const path = join(tmpdir(), `direct-${process.pid}`);
  const fd = libc.open(path, abi.O_RDWR | abi.O_CREAT | abi.O_DIRECT);
  rmSync(path, { force: true });
  return fd >= 0 && libc.close(fd) === 0;
})();

/** Runs `command`; null where it fails or is missing, as it is for users that are not root. */
function output(...command: string[]): string | null {
  try {
    const result = Bun.spawnSync(command);
    return result.exitCode === 0 ? result.stdout.toString().trim() : null;
  } catch {
    return null;
  }
}

function withLoopDevice(body: (path: string) => void): boolean {
  const directory = mkdtempSync(join(tmpdir(), "loop-"));
  const image = join(directory, "image");
  writeFileSync(image, new Uint8Array(4 * MiB));
  const device = output("losetup", "--find", "--show", image);
  try {
    if (device === null) return false;
    body(device);
    return true;
  } finally {
    if (device !== null) output("losetup", "--detach", device);
    rmSync(directory, { recursive: true });
  }
}
const canLoop = withLoopDevice(() => {});

function withSmallTmpfs(body: (directory: string) => void): boolean {
  const directory = mkdtempSync(join(tmpdir(), "small-"));
  const mounted = output("mount", "-t", "tmpfs", "-o", "size=64k", "none", directory) !== null;
  try {
    if (mounted) body(directory);
    return mounted;
  } finally {
    if (mounted) output("umount", directory);
    rmdirSync(directory);
  }
}
const canMount = withSmallTmpfs(() => {});

/** Writes a pattern and reads it back to another place, in transfers of `partBytes`. */
function roundTrip(h: Harness, fd: number, totalBytes: number, partBytes: number): void {
  const out = h.buffer(totalBytes);
  const into = h.buffer(totalBytes);
  fillPattern(out.bytes, totalBytes);
  for (let at = 0; at < totalBytes; at += partBytes)
    h.reactor.write(fd, out.address + at, Math.min(partBytes, totalBytes - at), at, at);
  for (let at = 0; at < totalBytes; at += partBytes) expect(h.wait(at)).toBe(Math.min(partBytes, totalBytes - at));
  h.reactor.sync(fd, 1);
  expect(h.wait(1)).toBe(0);
  for (let at = 0; at < totalBytes; at += partBytes)
    h.reactor.read(fd, into.address + at, Math.min(partBytes, totalBytes - at), at, at);
  for (let at = 0; at < totalBytes; at += partBytes) expect(h.wait(at)).toBe(Math.min(partBytes, totalBytes - at));
  expect(Buffer.compare(into.bytes, out.bytes)).toBe(0);
}

describe.each(BACKENDS)("files on %s", (_name, open) => {
  test(
    "what is written is read back",
    withHarness(open, (h) => roundTrip(h, h.file(0), MiB + 123, 64 << 10)),
  );

  test(
    "many times more operations than the queue is deep",
    withHarness(open, (h) => roundTrip(h, h.file(0), MiB, 512), 8),
  );

  test.skipIf(!canDirect)(
    "O_DIRECT",
    withHarness(open, (h) => roundTrip(h, h.file(0, abi.O_DIRECT), MiB, 128 << 10)),
  );

  test.skipIf(!canLoop)(
    "a block device",
    withHarness(open, (h) => {
      const ran = withLoopDevice((path) => {
        const fd = h.own(libc.open(path, abi.O_RDWR | abi.O_DIRECT | abi.O_EXCL));
        expect(libc.ioctlGet(fd, abi.BLKGETSIZE64, 64)).toBe(4 * MiB);
        expect(libc.ioctlGet(fd, abi.BLKSSZGET, 32)).toBe(512);
        roundTrip(h, fd, MiB, 256 << 10);
        expect(libc.ioctlRange(fd, abi.BLKZEROOUT, 4096, 8192)).toBe(0);
        const zeroed = h.buffer(16384);
        h.reactor.read(fd, zeroed.address, 16384, 0, 1);
        expect(h.wait(1)).toBe(16384);
        expect(zeroed.bytes.subarray(4096, 12288).every((byte) => byte === 0)).toBe(true);
        expect(zeroed.bytes.subarray(0, 4096).some((byte) => byte !== 0)).toBe(true);
        h.reactor.read(fd, zeroed.address, 4096, 4 * MiB, 2);
        expect(h.wait(2)).toBe(0);
        h.closeFd(fd);
      });
      expect(ran).toBe(true);
    }),
  );

  test(
    "offsets above 4 GiB and 1 TiB",
    withHarness(open, (h) => {
      const fd = h.file(0);
      const out = h.buffer(4096);
      const into = h.buffer(4096);
      for (const offset of [2 ** 32 - 2048, 2 ** 32 + 4096, 2 ** 40 + 512]) {
        fillPattern(out.bytes, offset);
        h.reactor.write(fd, out.address, 4096, offset, 1);
        expect(h.wait(1)).toBe(4096);
        h.reactor.read(fd, into.address, 4096, offset, 2);
        expect(h.wait(2)).toBe(4096);
        expect(Buffer.compare(into.bytes, out.bytes)).toBe(0);
      }
      expect(libc.lseek(fd, 0, abi.SEEK_END)).toBe(2 ** 40 + 512 + 4096);
    }),
  );

  test(
    "a read over the end is short, beyond it 0",
    withHarness(open, (h) => {
      const fd = h.file(1000);
      const into = h.buffer(4096);
      h.reactor.read(fd, into.address, 4096, 200, 1);
      expect(h.wait(1)).toBe(800);
      h.reactor.read(fd, into.address, 4096, 1000, 2);
      expect(h.wait(2)).toBe(0);
    }),
  );

  test(
    "a closed descriptor is -EBADF for every operation",
    withHarness(open, (h) => {
      const { address } = h.buffer(16);
      h.reactor.read(999, address, 16, 0, 1);
      h.reactor.write(999, address, 16, 0, 2);
      h.reactor.fallocate(999, 0, 0, 16, 3);
      h.reactor.sync(999, 4);
      expect([1, 2, 3, 4].map((token) => h.wait(token))).toEqual([-EBADF, -EBADF, -EBADF, -EBADF]);
    }),
  );

  test(
    "a full device is -ENOSPC",
    withHarness(open, (h) => {
      const fd = h.own(libc.open("/dev/full", abi.O_WRONLY));
      h.reactor.write(fd, h.buffer(4096).address, 4096, 0, 1);
      expect(h.wait(1)).toBe(-ENOSPC);
    }),
  );

  test.skipIf(!canMount)(
    "a file system that fills up: short, then -ENOSPC",
    withHarness(open, (h) => {
      const ran = withSmallTmpfs((directory) => {
        const fd = h.own(libc.open(join(directory, "file"), abi.O_RDWR | abi.O_CREAT));
        const { address } = h.buffer(256 << 10);
        h.reactor.write(fd, address, 256 << 10, 0, 1);
        expect(h.wait(1)).toBe(64 << 10);
        h.reactor.write(fd, address, 4096, 64 << 10, 2);
        expect(h.wait(2)).toBe(-ENOSPC);
        h.reactor.fallocate(fd, 0, 0, MiB, 3);
        expect(h.wait(3)).toBe(-ENOSPC);
        h.closeFd(fd);
      });
      expect(ran).toBe(true);
    }),
  );

  test(
    "a medium that cannot be read is -EIO",
    withHarness(open, (h) => {
      // The page at 0 is mapped by nobody: the kernel answers like a disk with a bad sector.
      const fd = h.own(libc.open("/proc/self/mem", abi.O_RDONLY));
      h.reactor.read(fd, h.buffer(16).address, 16, 0, 1);
      expect(h.wait(1)).toBe(-EIO);
    }),
  );

  test(
    "fallocate reserves, punches holes and zeroes",
    withHarness(open, (h) => {
      const fd = h.file(0);
      const data = h.buffer(64 << 10);
      data.bytes.fill(0xff);
      h.reactor.fallocate(fd, 0, 0, 64 << 10, 1);
      expect(h.wait(1)).toBe(0);
      expect(libc.lseek(fd, 0, abi.SEEK_END)).toBe(64 << 10);
      h.reactor.write(fd, data.address, 64 << 10, 0, 2);
      expect(h.wait(2)).toBe(64 << 10);
      h.reactor.fallocate(fd, abi.FALLOC_FL_PUNCH_HOLE | abi.FALLOC_FL_KEEP_SIZE, 8192, 4096, 3);
      const punched = h.wait(3);
      if (punched !== -EOPNOTSUPP) {
        expect(punched).toBe(0);
        h.reactor.read(fd, data.address, 64 << 10, 0, 4);
        expect(h.wait(4)).toBe(64 << 10);
        expect(data.bytes.subarray(8192, 12288).every((byte) => byte === 0)).toBe(true);
        expect(data.bytes[8191]! + data.bytes[12288]!).toBe(510);
      }
    }),
  );
});
