/** A receive into several places that waits for nothing: the same for every back end, since the kernel is asked at once. */
import * as abi from "./abi.ts";
import { Errno, recvmsg, type Result } from "./libc.ts";
import { type Memory, mapMemory } from "./memory.ts";
import type { Address } from "./reactor.ts";

/** One `struct msghdr` for each thread that loads this module: filled and used within one call. */
let header: Memory | null = null;

/** recvmsg(2) with MSG_DONTWAIT into a `struct iovec` array. Bytes, 0 at the end of the stream, or -errno. */
export function receiveNow(fd: number, iov: Address, iovCount: number): Result {
  header ??= mapMemory(abi.MSGHDR_BYTES);
  const { view } = header;
  for (;;) {
    view.setUint32(16, iov >>> 0, true);
    view.setUint32(20, Math.floor(iov / 2 ** 32), true);
    view.setUint32(24, iovCount, true);
    const result = recvmsg(fd, header.address, abi.MSG_DONTWAIT);
    if (result !== -Errno.EINTR) return result;
  }
}
