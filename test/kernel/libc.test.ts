import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import * as abi from "../../src/kernel/abi.ts";
import * as libc from "../../src/kernel/libc.ts";
import { mapMemory, viewAt } from "../../src/kernel/memory.ts";

function withDirectory(body: (directory: string) => void): () => void {
  return () => {
    const directory = mkdtempSync(join(tmpdir(), "libc-"));
    body(directory);
    rmSync(directory, { recursive: true });
  };
}

test("errno values are this system's", () => {
  for (const [name, value] of Object.entries(libc.Errno)) {
    const known = (constants.errno as Record<string, number>)[name];
    if (known !== undefined) expect(`${name} ${value}`).toBe(`${name} ${known}`);
    expect(libc.errnoName(value)).toBe(name);
  }
});

test("a thread becomes nicer, and never more than nicest", () => {
  const nice = () =>
    Number(
      readFileSync("/proc/thread-self/stat", "utf8")
        .replace(/^.*\) /, "")
        .split(" ")[16],
    );
  const before = nice();
  expect(libc.makeThreadNicer(1)).toBe(0);
  expect(nice()).toBe(Math.min(before + 1, abi.NICE_MAX));
  expect(libc.makeThreadNicer(0)).toBe(0);
  expect(nice()).toBe(Math.min(before + 1, abi.NICE_MAX));
});

test("errno texts", () => {
  expect(libc.errnoText(5)).toBe("EIO: input/output error");
  expect(libc.errnoText(-28)).toBe("ENOSPC: no space left on device");
  expect(libc.errnoText(-4000)).toBe("errno 4000: unknown error");
  expect(libc.errnoName(-4000)).toBe("errno 4000");
});

test(
  "open says what is wrong as minus errno",
  withDirectory((directory) => {
    expect(libc.open(join(directory, "none"), abi.O_RDONLY)).toBe(-libc.Errno.ENOENT);
    expect(libc.open(directory, abi.O_WRONLY)).toBe(-libc.Errno.EISDIR);
    expect(libc.open("a\0b", abi.O_RDONLY)).toBe(-libc.Errno.EINVAL);
    expect(libc.open("x".repeat(5000), abi.O_RDONLY)).toBe(-libc.Errno.ENAMETOOLONG);
    const path = join(directory, "file");
    const fd = libc.open(path, abi.O_RDWR | abi.O_CREAT | abi.O_EXCL, 0o600);
    expect(fd).toBeGreaterThanOrEqual(0);
    expect(libc.open(path, abi.O_RDWR | abi.O_CREAT | abi.O_EXCL)).toBe(-libc.Errno.EEXIST);
    symlinkSync(path, join(directory, "link"));
    expect(libc.open(join(directory, "link"), abi.O_RDONLY | abi.O_NOFOLLOW)).toBe(-libc.Errno.ELOOP);
    expect(libc.close(fd)).toBe(0);
    expect(libc.close(fd)).toBe(-libc.Errno.EBADF);
  }),
);

test(
  "a path with other letters than ASCII",
  withDirectory((directory) => {
    const path = join(directory, "Gerät-磁盘");
    writeFileSync(path, "abc");
    const found = libc.stat(path);
    expect(typeof found === "number" ? found : found.sizeBytes).toBe(3);
  }),
);

test(
  "stat agrees with node:fs, on files and on devices",
  withDirectory((directory) => {
    const path = join(directory, "file");
    writeFileSync(path, new Uint8Array(12_345));
    for (const each of [path, "/dev/null", "/"]) {
      const found = libc.stat(each);
      if (typeof found === "number") throw new Error(libc.errnoText(found));
      const known = statSync(each);
      expect({ mode: found.mode, size: found.sizeBytes, inode: found.inode, mtimeMs: found.mtimeMs }).toEqual({
        mode: known.mode,
        size: known.size,
        inode: known.ino,
        mtimeMs: Math.floor(known.mtimeMs),
      });
      expect(found.allocatedBytes).toBe(known.blocks * 512);
    }
    const zero = libc.stat("/dev/zero");
    if (typeof zero === "number") throw new Error(libc.errnoText(zero));
    expect([zero.mode & abi.S_IFMT, zero.rdevMajor, zero.rdevMinor]).toEqual([abi.S_IFCHR, 1, 5]);
    expect(libc.stat(join(directory, "none"))).toBe(-libc.Errno.ENOENT);
  }),
);

test(
  "fstat, sizes beyond 32 bits, data and holes",
  withDirectory((directory) => {
    const fd = libc.open(join(directory, "file"), abi.O_RDWR | abi.O_CREAT);
    const far = 2 ** 41;
    expect(libc.ftruncate(fd, far)).toBe(0);
    const found = libc.fstat(fd);
    expect(typeof found === "number" ? found : found.sizeBytes).toBe(far);
    const memory = mapMemory(4096);
    memory.bytes.fill(1);
    expect(libc.pwrite(fd, memory.address, 4096, far / 2)).toBe(4096);
    expect(libc.lseek(fd, 0, abi.SEEK_DATA)).toBe(far / 2);
    expect(libc.lseek(fd, far / 2, abi.SEEK_HOLE)).toBe(far / 2 + 4096);
    expect(libc.lseek(fd, far, abi.SEEK_DATA)).toBe(-libc.Errno.ENXIO);
    memory.bytes.fill(0);
    expect(libc.pread(fd, memory.address, 4096, far / 2)).toBe(4096);
    expect(memory.bytes.every((byte) => byte === 1)).toBe(true);
    expect(libc.fstat(999)).toBe(-libc.Errno.EBADF);
    expect(libc.fdatasync(fd)).toBe(0);
    expect(libc.fsync(fd)).toBe(0);
    expect(libc.fadvise(fd, 0, 4096, abi.POSIX_FADV_DONTNEED)).toBe(0);
    expect(libc.fadvise(fd, 0, 4096, 99)).toBe(-libc.Errno.EINVAL);
    libc.close(fd);
    memory.free();
  }),
);

test(
  "flock keeps a second opener out",
  withDirectory((directory) => {
    const path = join(directory, "file");
    const first = libc.open(path, abi.O_RDWR | abi.O_CREAT);
    const second = libc.open(path, abi.O_RDWR);
    expect(libc.flock(first, abi.LOCK_EX | abi.LOCK_NB)).toBe(0);
    expect(libc.flock(second, abi.LOCK_EX | abi.LOCK_NB)).toBe(-libc.Errno.EAGAIN);
    expect(libc.flock(first, abi.LOCK_UN)).toBe(0);
    expect(libc.flock(second, abi.LOCK_SH | abi.LOCK_NB)).toBe(0);
    libc.close(first);
    libc.close(second);
  }),
);

test(
  "a block ioctl on a file is -ENOTTY",
  withDirectory((directory) => {
    const fd = libc.open(join(directory, "file"), abi.O_RDWR | abi.O_CREAT);
    expect(libc.ioctlGet(fd, abi.BLKGETSIZE64, 64)).toBe(-libc.Errno.ENOTTY);
    expect(libc.ioctlRange(fd, abi.BLKZEROOUT, 0, 512)).toBe(-libc.Errno.ENOTTY);
    expect(libc.ioctl(fd, abi.BLKFLSBUF)).toBe(-libc.Errno.ENOTTY);
    libc.close(fd);
  }),
);

test("integers out of range are bugs, not wrapped", () => {
  expect(() => libc.close(2 ** 32 + 1)).toThrow("out of range");
  expect(() => libc.close(1.5)).toThrow("out of range");
  expect(() => libc.pread(0, 4096, 1, -1)).toThrow("out of range");
  expect(() => libc.pread(0, 4096, 2 ** 60, 0)).toThrow("out of range");
  expect(() => libc.pwrite(0, Number.NaN, 1, 0)).toThrow("out of range");
  expect(() => libc.ftruncate(0, -1)).toThrow("out of range");
});

test("mapped memory is zero, page aligned, shared by its views and freed once", () => {
  const memory = mapMemory(5000);
  expect(memory.address % abi.PAGE_BYTES).toBe(0);
  expect(memory.bytes.length).toBe(5000);
  expect(memory.bytes.every((byte) => byte === 0)).toBe(true);
  memory.view.setUint32(4996, 0x01020304, true);
  expect([...viewAt(memory.address + 4996, 4)]).toEqual([4, 3, 2, 1]);
  memory.free();
  expect(() => memory.free()).toThrow("freed twice");
  expect(() => mapMemory(0)).toThrow("out of range");
  expect(() => mapMemory(2 ** 50)).toThrow("--memory");
});

test("a view stays where it is while the heap is collected", () => {
  const memory = mapMemory(1 << 16);
  const path = join(tmpdir(), `stay-${process.pid}`);
  writeFileSync(path, new Uint8Array(1 << 16).fill(7));
  const fd = libc.open(path, abi.O_RDONLY);
  for (let round = 0; round < 50; round++) {
    memory.bytes.fill(0);
    const garbage = Array.from({ length: 200 }, () => new Uint8Array(4096));
    Bun.gc(true);
    expect(libc.pread(fd, memory.address, 1 << 16, 0)).toBe(1 << 16);
    expect(memory.bytes.every((byte) => byte === 7)).toBe(true);
    expect(garbage.length).toBe(200);
  }
  libc.close(fd);
  memory.free();
  rmSync(path);
});
