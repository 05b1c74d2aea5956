/**
 * The system calls of the program.
 *
 * Every wrapper answers with what the call returns or with minus errno and never throws for what the kernel says; integers
 * are asserted to be in range before the call because bun:ffi wraps them silently. Buffers are addresses of mmapped memory (see
 * memory.ts) and belong to the caller; paths and small structures go through two scratch pages that live as long as the thread.
 */
import { assert, assertRange } from "../errors.ts";
import * as abi from "./abi.ts";
import { Errno } from "./errno.ts";
import { bufferAt, loadLibrary } from "./ffi.ts";

export { Errno, errnoName, errnoText } from "./errno.ts";

/** A value of at least 0, or minus errno. */
export type Result = number;
const SYMBOLS = {
  __errno_location: { args: [], returns: "ptr" },
  syscall: {
    args: ["i64_fast", "i64_fast", "i64_fast", "i64_fast", "i64_fast", "i64_fast", "i64_fast"],
    returns: "i64_fast",
  },
  openat: { args: ["i32", "ptr", "i32", "u32"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "i64_fast"], returns: "i32" },
  mmap: { args: ["u64_fast", "u64_fast", "i32", "i32", "i32", "i64_fast"], returns: "i64_fast" },
  mprotect: { args: ["u64_fast", "u64_fast", "i32"], returns: "i32" },
  madvise: { args: ["u64_fast", "u64_fast", "i32"], returns: "i32" },
  munmap: { args: ["u64_fast", "u64_fast"], returns: "i32" },
  read: { args: ["i32", "u64_fast", "u64_fast"], returns: "i64_fast" },
  write: { args: ["i32", "u64_fast", "u64_fast"], returns: "i64_fast" },
  pread: { args: ["i32", "u64_fast", "u64_fast", "i64_fast"], returns: "i64_fast" },
  pwrite: { args: ["i32", "u64_fast", "u64_fast", "i64_fast"], returns: "i64_fast" },
  lseek: { args: ["i32", "i64_fast", "i32"], returns: "i64_fast" },
  ftruncate: { args: ["i32", "i64_fast"], returns: "i32" },
  fallocate: { args: ["i32", "i32", "i64_fast", "i64_fast"], returns: "i32" },
  posix_fadvise: { args: ["i32", "i64_fast", "i64_fast", "i32"], returns: "i32" },
  fsync: { args: ["i32"], returns: "i32" },
  fdatasync: { args: ["i32"], returns: "i32" },
  ioctl: { args: ["i32", "u64_fast", "u64_fast"], returns: "i32" },
  flock: { args: ["i32", "i32"], returns: "i32" },
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  bind: { args: ["i32", "u64_fast", "u32"], returns: "i32" },
  listen: { args: ["i32", "i32"], returns: "i32" },
  accept4: { args: ["i32", "u64_fast", "u64_fast", "i32"], returns: "i32" },
  connect: { args: ["i32", "u64_fast", "u32"], returns: "i32" },
  shutdown: { args: ["i32", "i32"], returns: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "u64_fast", "u32"], returns: "i32" },
  getsockopt: { args: ["i32", "i32", "i32", "u64_fast", "u64_fast"], returns: "i32" },
  getsockname: { args: ["i32", "u64_fast", "u64_fast"], returns: "i32" },
  getpeername: { args: ["i32", "u64_fast", "u64_fast"], returns: "i32" },
  recv: { args: ["i32", "u64_fast", "u64_fast", "i32"], returns: "i64_fast" },
  sendmsg: { args: ["i32", "u64_fast", "i32"], returns: "i64_fast" },
  recvmsg: { args: ["i32", "u64_fast", "i32"], returns: "i64_fast" },
  memcpy: { args: ["u64_fast", "u64_fast", "u64_fast"], returns: "ptr" },
  sendfile: { args: ["i32", "i32", "u64_fast", "u64_fast"], returns: "i64_fast" },
  recvmmsg: { args: ["i32", "u64_fast", "u32", "i32", "u64_fast"], returns: "i32" },
  sendmmsg: { args: ["i32", "u64_fast", "u32", "i32"], returns: "i32" },
  eventfd: { args: ["u32", "i32"], returns: "i32" },
  epoll_create1: { args: ["i32"], returns: "i32" },
  epoll_ctl: { args: ["i32", "i32", "i32", "u64_fast"], returns: "i32" },
  epoll_wait: { args: ["i32", "u64_fast", "i32", "i32"], returns: "i32" },
} as const;

/** glibc first, then musl under its names on Alpine and elsewhere; `libc.so` of glibc is a text file, so it comes last. */
function libraryNames(): string[] {
  const machine = abi.isArm64 ? "aarch64" : "x86_64";
  return [
    "libc.so.6",
    `libc.musl-${machine}.so.1`,
    `ld-musl-${machine}.so.1`,
    `/lib/ld-musl-${machine}.so.1`,
    "libc.so",
  ];
}

const libc = loadLibrary("the C library", libraryNames(), "a Linux system with glibc or musl is needed", SYMBOLS);
const errnoView = new Int32Array(bufferAt(libc.__errno_location(), 4));

/** The answer of a call that reports failure as -1: itself, or minus errno. Nothing may run between the call and this. */
function answer(result: number): Result {
  return result === -1 ? -errnoView[0] : result;
}

function assertFd(fd: number): void {
  assertRange((fd | 0) === fd, "file descriptor", fd);
}

function assertInt(value: number, what: string): void {
  assertRange((value | 0) === value, what, value);
}

function assertSize(value: number, what: string): void {
  assertRange(Number.isSafeInteger(value) && value >= 0, what, value);
}

// Memory

/** mmap(2). Returns the address or -errno. */
export function mmap(lengthBytes: number, protection: number, flags: number, fd: number, offsetBytes: number): Result {
  assertSize(lengthBytes, "length");
  assertInt(fd, "file descriptor");
  assertSize(offsetBytes, "offset");
  return answer(libc.mmap(0, lengthBytes, protection, flags, fd, offsetBytes));
}

/** mprotect(2): what may be done with whole pages from now on. */
export function mprotect(address: number, lengthBytes: number, protection: number): Result {
  assertSize(address, "address");
  assertSize(lengthBytes, "length");
  return answer(libc.mprotect(address, lengthBytes, protection));
}

/** madvise(2). */
export function madvise(address: number, lengthBytes: number, advice: number): Result {
  assertSize(address, "address");
  assertSize(lengthBytes, "length");
  return answer(libc.madvise(address, lengthBytes, advice));
}

/** munmap(2). Every view of the range is invalid afterwards. */
export function munmap(address: number, lengthBytes: number): Result {
  assertSize(address, "address");
  assertSize(lengthBytes, "length");
  return answer(libc.munmap(address, lengthBytes));
}

const SCRATCH_BYTES = 2 * abi.PAGE_BYTES;
const STRUCT_OFFSET = abi.PAGE_BYTES;
const scratchAddress = mmap(SCRATCH_BYTES, abi.PROT_READ | abi.PROT_WRITE, abi.MAP_PRIVATE | abi.MAP_ANONYMOUS, -1, 0);
assert(scratchAddress > 0, `cannot map scratch memory: errno ${-scratchAddress}`);
const scratchBytes = new Uint8Array(bufferAt(scratchAddress, SCRATCH_BYTES));
const structAddress = scratchAddress + STRUCT_OFFSET;
const structView = new DataView(scratchBytes.buffer, STRUCT_OFFSET, abi.PAGE_BYTES);
const encoder = new TextEncoder();

/** Puts a NUL-terminated path into the scratch page. Returns its address or -errno. */
function pathAddress(path: string): Result {
  if (path.includes("\0")) return -Errno.EINVAL;
  const { read, written } = encoder.encodeInto(path, scratchBytes.subarray(0, abi.PAGE_BYTES - 1));
  if (read < path.length) return -Errno.ENAMETOOLONG;
  scratchBytes[written] = 0;
  return scratchAddress;
}

// Files

/** openat(2) relative to the working directory, always with O_CLOEXEC. Returns the descriptor or -errno. */
export function open(path: string, flags: number, mode = 0o644): Result {
  assertInt(flags, "open flags");
  const address = pathAddress(path);
  if (address < 0) return address;
  return answer(libc.openat(abi.AT_FDCWD, address, flags | abi.O_CLOEXEC, mode));
}

/** close(2). Not to be repeated on -EINTR: the descriptor is gone. */
export function close(fd: number): Result {
  assertFd(fd);
  return answer(libc.close(fd));
}

/** Sets or clears O_NONBLOCK of an open file description. */
export function setNonblocking(fd: number, nonblocking: boolean): Result {
  assertFd(fd);
  const flags = answer(libc.fcntl(fd, abi.F_GETFL, 0));
  if (flags < 0) return flags;
  const wanted = nonblocking ? flags | abi.O_NONBLOCK : flags & ~abi.O_NONBLOCK;
  return wanted === flags ? 0 : answer(libc.fcntl(fd, abi.F_SETFL, wanted));
}

/** read(2) at the file position, for example of an eventfd. */
export function read(fd: number, address: number, lengthBytes: number): Result {
  assertFd(fd);
  assertSize(address, "address");
  assertSize(lengthBytes, "length");
  return answer(libc.read(fd, address, lengthBytes));
}

/** write(2) at the file position. */
export function write(fd: number, address: number, lengthBytes: number): Result {
  assertFd(fd);
  assertSize(address, "address");
  assertSize(lengthBytes, "length");
  return answer(libc.write(fd, address, lengthBytes));
}

/** pread(2): bytes read (short at the end of the file or on a signal) or -errno. */
export function pread(fd: number, address: number, lengthBytes: number, offsetBytes: number): Result {
  assertFd(fd);
  assertSize(address, "address");
  assertSize(lengthBytes, "length");
  assertSize(offsetBytes, "offset");
  return answer(libc.pread(fd, address, lengthBytes, offsetBytes));
}

/** pwrite(2): bytes written (may be short) or -errno. */
export function pwrite(fd: number, address: number, lengthBytes: number, offsetBytes: number): Result {
  assertFd(fd);
  assertSize(address, "address");
  assertSize(lengthBytes, "length");
  assertSize(offsetBytes, "offset");
  return answer(libc.pwrite(fd, address, lengthBytes, offsetBytes));
}

/** lseek(2); with SEEK_DATA and SEEK_HOLE the next data or hole, -ENXIO when there is none. */
export function lseek(fd: number, offsetBytes: number, whence: number): Result {
  assertFd(fd);
  assertSize(offsetBytes, "offset");
  return answer(libc.lseek(fd, offsetBytes, whence));
}

export function ftruncate(fd: number, lengthBytes: number): Result {
  assertFd(fd);
  assertSize(lengthBytes, "length");
  return answer(libc.ftruncate(fd, lengthBytes));
}

/** fallocate(2), mode of FALLOC_FL_*. */
export function fallocate(fd: number, mode: number, offsetBytes: number, lengthBytes: number): Result {
  assertFd(fd);
  assertInt(mode, "fallocate mode");
  assertSize(offsetBytes, "offset");
  assertSize(lengthBytes, "length");
  return answer(libc.fallocate(fd, mode, offsetBytes, lengthBytes));
}

/** posix_fadvise(2), which returns its errno instead of setting it. */
export function fadvise(fd: number, offsetBytes: number, lengthBytes: number, advice: number): Result {
  assertFd(fd);
  assertSize(offsetBytes, "offset");
  assertSize(lengthBytes, "length");
  return 0 - libc.posix_fadvise(fd, offsetBytes, lengthBytes, advice);
}

export function fsync(fd: number): Result {
  assertFd(fd);
  return answer(libc.fsync(fd));
}

export function fdatasync(fd: number): Result {
  assertFd(fd);
  return answer(libc.fdatasync(fd));
}

/** flock(2) with LOCK_*; -EAGAIN when LOCK_NB was given and another holds it. */
export function flock(fd: number, operation: number): Result {
  assertFd(fd);
  return answer(libc.flock(fd, operation));
}

/** What statx(2) says of a file. */
export interface FileStat {
  /** File type and permission bits (S_IF*). */
  readonly mode: number;
  readonly sizeBytes: number;
  /** Bytes that are really stored: 512 times st_blocks. */
  readonly allocatedBytes: number;
  readonly inode: number;
  /** Whole milliseconds since the epoch. */
  readonly mtimeMs: number;
  /** The device that holds the file. */
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** The device that the file is (block and character devices). */
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  /** Alignment that O_DIRECT asks of addresses and of offsets: 0 when not supported, null before Linux 6.1 or unknown. */
  readonly directMemoryAlignBytes: number | null;
  readonly directOffsetAlignBytes: number | null;
}

function statxCall(directory: number, path: number, flags: number): FileStat | Result {
  const mask = abi.STATX_BASIC_STATS | abi.STATX_DIOALIGN;
  const result = answer(libc.syscall(abi.SYS_STATX, directory, path, flags, mask, structAddress, 0));
  return result < 0 ? result : decodeStatx();
}

function decodeStatx(): FileStat {
  const knowsAlignment = (structView.getUint32(0x00, true) & abi.STATX_DIOALIGN) !== 0;
  const u64 = (offset: number) => Number(structView.getBigUint64(offset, true));
  return {
    mode: structView.getUint16(0x1c, true),
    inode: u64(0x20),
    sizeBytes: u64(0x28),
    allocatedBytes: u64(0x30) * 512,
    mtimeMs: Number(structView.getBigInt64(0x70, true)) * 1000 + Math.floor(structView.getUint32(0x78, true) / 1e6),
    rdevMajor: structView.getUint32(0x80, true),
    rdevMinor: structView.getUint32(0x84, true),
    deviceMajor: structView.getUint32(0x88, true),
    deviceMinor: structView.getUint32(0x8c, true),
    directMemoryAlignBytes: knowsAlignment ? structView.getUint32(0x98, true) : null,
    directOffsetAlignBytes: knowsAlignment ? structView.getUint32(0x9c, true) : null,
  };
}

/** statx(2) of a path, following symbolic links. Returns the stat or -errno. */
export function stat(path: string): FileStat | Result {
  const address = pathAddress(path);
  return address < 0 ? address : statxCall(abi.AT_FDCWD, address, 0);
}

/** statx(2) of an open file. Returns the stat or -errno. */
export function fstat(fd: number): FileStat | Result {
  assertFd(fd);
  return statxCall(fd, pathAddress(""), abi.AT_EMPTY_PATH);
}

/** ioctl(2) without an argument, for example BLKFLSBUF. */
export function ioctl(fd: number, request: number): Result {
  assertFd(fd);
  return answer(libc.ioctl(fd, request, 0));
}

/** ioctl(2) that fills in an unsigned integer of 32 or 64 bits: BLKSSZGET, BLKPBSZGET, BLKROGET; BLKGETSIZE64. */
export function ioctlGet(fd: number, request: number, bits: 32 | 64): Result {
  assertFd(fd);
  structView.setBigUint64(0, 0n, true);
  const result = answer(libc.ioctl(fd, request, structAddress));
  if (result < 0) return result;
  return bits === 32 ? structView.getUint32(0, true) : Number(structView.getBigUint64(0, true));
}

/** ioctl(2) on a range of bytes: BLKZEROOUT. Offset and length are multiples of the sector size. Blocks until done. */
export function ioctlRange(fd: number, request: number, offsetBytes: number, lengthBytes: number): Result {
  assertFd(fd);
  assertSize(offsetBytes, "offset");
  assertSize(lengthBytes, "length");
  structView.setBigUint64(0, BigInt(offsetBytes), true);
  structView.setBigUint64(8, BigInt(lengthBytes), true);
  return answer(libc.ioctl(fd, request, structAddress));
}

// Sockets: a sockaddr is at an address of mapped memory (see sockets.ts)

export function socket(family: number, type: number, protocol: number): Result {
  assertInt(type, "socket type");
  return answer(libc.socket(family, type, protocol));
}

export function bind(fd: number, sockaddr: number, sockaddrBytes: number): Result {
  assertFd(fd);
  assertSize(sockaddr, "address");
  return answer(libc.bind(fd, sockaddr, sockaddrBytes));
}

export function listen(fd: number, backlog: number): Result {
  assertFd(fd);
  assertInt(backlog, "backlog");
  return answer(libc.listen(fd, backlog));
}

/** accept4(2) without the peer's address: getpeername tells it. */
export function accept4(fd: number, flags: number): Result {
  assertFd(fd);
  return answer(libc.accept4(fd, 0, 0, flags));
}

export function connect(fd: number, sockaddr: number, sockaddrBytes: number): Result {
  assertFd(fd);
  assertSize(sockaddr, "address");
  return answer(libc.connect(fd, sockaddr, sockaddrBytes));
}

export function shutdown(fd: number, how: number): Result {
  assertFd(fd);
  return answer(libc.shutdown(fd, how));
}

/** setsockopt(2) with an int. */
export function setsockoptInt(fd: number, level: number, option: number, value: number): Result {
  assertFd(fd);
  assertInt(value, "socket option");
  structView.setInt32(0, value, true);
  return answer(libc.setsockopt(fd, level, option, structAddress, 4));
}

/** setsockopt(2) SO_LINGER with time 0: close then resets the connection instead of ending it in order. */
export function setsockoptReset(fd: number): Result {
  assertFd(fd);
  structView.setInt32(0, 1, true);
  structView.setInt32(4, 0, true);
  return answer(libc.setsockopt(fd, abi.SOL_SOCKET, abi.SO_LINGER, structAddress, 8));
}

/** getsockopt(2) of an int that is not negative, for example SO_ERROR (a positive errno or 0). */
export function getsockoptInt(fd: number, level: number, option: number): Result {
  assertFd(fd);
  structView.setInt32(0, 0, true);
  structView.setUint32(8, 4, true);
  const result = answer(libc.getsockopt(fd, level, option, structAddress, structAddress + 8));
  return result < 0 ? result : structView.getInt32(0, true);
}

/** getsockname(2) into `sockaddr`. Returns the address's length in bytes or -errno. */
export function getsockname(fd: number, sockaddr: number, capacityBytes: number): Result {
  assertFd(fd);
  assertSize(sockaddr, "address");
  structView.setUint32(0, capacityBytes, true);
  const result = answer(libc.getsockname(fd, sockaddr, structAddress));
  return result < 0 ? result : structView.getUint32(0, true);
}

/** getpeername(2) into `sockaddr`. Returns the address's length in bytes or -errno. */
export function getpeername(fd: number, sockaddr: number, capacityBytes: number): Result {
  assertFd(fd);
  assertSize(sockaddr, "address");
  structView.setUint32(0, capacityBytes, true);
  const result = answer(libc.getpeername(fd, sockaddr, structAddress));
  return result < 0 ? result : structView.getUint32(0, true);
}

export function recv(fd: number, address: number, lengthBytes: number, flags: number): Result {
  assertFd(fd);
  assertSize(address, "address");
  assertSize(lengthBytes, "length");
  return answer(libc.recv(fd, address, lengthBytes, flags));
}

/** sendmsg(2) of a `struct msghdr` at `msghdr`. */
export function sendmsg(fd: number, msghdr: number, flags: number): Result {
  assertFd(fd);
  assertSize(msghdr, "address");
  return answer(libc.sendmsg(fd, msghdr, flags));
}

/** recvmsg(2) with a `struct msghdr` at `msghdr`. */
export function recvmsg(fd: number, msghdr: number, flags: number): Result {
  assertFd(fd);
  assertSize(msghdr, "address");
  return answer(libc.recvmsg(fd, msghdr, flags));
}

/** Copies between two ranges of mapped memory that do not overlap. */
export function copyMemory(to: number, from: number, lengthBytes: number): void {
  assertSize(to, "address");
  assertSize(from, "address");
  assertSize(lengthBytes, "length");
  libc.memcpy(to, from, lengthBytes);
}

/** sendfile(2) of a file's range; the file position stays. 0 at the end of the file. Raises SIGPIPE, which must be ignored. */
export function sendfile(socketFd: number, fileFd: number, offsetBytes: number, lengthBytes: number): Result {
  assertFd(socketFd);
  assertFd(fileFd);
  assertSize(offsetBytes, "offset");
  assertSize(lengthBytes, "length");
  putSize(0, offsetBytes);
  return answer(libc.sendfile(socketFd, fileFd, structAddress, lengthBytes));
}

/** cachestat(2), Linux 6.5: how many pages of a file's range are in the page cache. -EOPNOTSUPP for some kinds of file. */
export function cachedPages(fd: number, offsetBytes: number, lengthBytes: number): Result {
  assertFd(fd);
  assertSize(offsetBytes, "offset");
  assertSize(lengthBytes, "length");
  putSize(0, offsetBytes);
  putSize(8, lengthBytes);
  const result = answer(libc.syscall(abi.SYS_CACHESTAT, fd, structAddress, structAddress + 16, 0, 0, 0));
  return result < 0 ? result : structView.getUint32(16, true);
}

/** Puts a 64-bit unsigned integer into the scratch structure. */
function putSize(at: number, value: number): void {
  structView.setUint32(at, value >>> 0, true);
  structView.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

/** recvmmsg(2) of at most `count` datagrams into an array of `struct mmsghdr`. Returns how many came. */
export function recvmmsg(fd: number, mmsghdrs: number, count: number, flags: number): Result {
  assertSize(mmsghdrs, "address");
  return answer(libc.recvmmsg(fd, mmsghdrs, count, flags, 0));
}

/** sendmmsg(2) of such an array. Returns how many were sent: fewer, where one was refused. */
export function sendmmsg(fd: number, mmsghdrs: number, count: number, flags: number): Result {
  assertSize(mmsghdrs, "address");
  return answer(libc.sendmmsg(fd, mmsghdrs, count, flags));
}

// Waiting

export function eventfd(initial: number, flags: number): Result {
  assertInt(initial, "eventfd value");
  return answer(libc.eventfd(initial, flags));
}

export function epollCreate(): Result {
  return answer(libc.epoll_create1(abi.EPOLL_CLOEXEC));
}

/** epoll_ctl(2) with one event whose data is `data` (32 bits). */
export function epollCtl(epollFd: number, operation: number, fd: number, events: number, data: number): Result {
  assertFd(fd);
  structView.setUint32(0, events, true);
  structView.setUint32(abi.EPOLL_EVENT_DATA_OFFSET, data, true);
  structView.setUint32(abi.EPOLL_EVENT_DATA_OFFSET + 4, 0, true);
  return answer(libc.epoll_ctl(epollFd, operation, fd, structAddress));
}

/** epoll_wait(2) of at most `eventsMax` events into `events`; `timeoutMs` -1 waits for ever. */
export function epollWait(epollFd: number, events: number, eventsMax: number, timeoutMs: number): Result {
  assertInt(timeoutMs, "timeout");
  return answer(libc.epoll_wait(epollFd, events, eventsMax, timeoutMs));
}

/** io_uring_setup(2) with a `struct io_uring_params` at `params`. Returns the ring's descriptor. */
export function ioUringSetup(entries: number, params: number): Result {
  return answer(libc.syscall(abi.SYS_IO_URING_SETUP, entries, params, 0, 0, 0, 0));
}

/** io_uring_enter(2). Returns how many entries were consumed. */
export function ioUringEnter(
  fd: number,
  toSubmit: number,
  minComplete: number,
  flags: number,
  argument: number,
  argumentBytes: number,
): Result {
  return answer(libc.syscall(abi.SYS_IO_URING_ENTER, fd, toSubmit, minComplete, flags, argument, argumentBytes));
}

/** io_uring_register(2). */
export function ioUringRegister(fd: number, operation: number, argument: number, count: number): Result {
  return answer(libc.syscall(abi.SYS_IO_URING_REGISTER, fd, operation, argument, count, 0, 0));
}

/** setpriority(2): makes the calling thread so much nicer, as nice(1) makes a program. Needs no privilege. */
export function makeThreadNicer(steps: number): Result {
  assertSize(steps, "steps");
  const priority = answer(libc.syscall(abi.SYS_GETPRIORITY, abi.PRIO_PROCESS, 0, 0, 0, 0, 0));
  if (priority < 0) return priority;
  const nice = Math.min(abi.PRIORITY_OF_NICE_0 - priority + steps, abi.NICE_MAX);
  return answer(libc.syscall(abi.SYS_SETPRIORITY, abi.PRIO_PROCESS, 0, nice, 0, 0, 0));
}
