/** What a failed system call on a disk means to the person at the machine: device, offset, errno and what to do. */
import { DiskFault } from "../errors.ts";
import { Errno, errnoText } from "../kernel/libc.ts";

const ADVICE: ReadonlyMap<number, string> = new Map([
  [Errno.EIO, "the device failed; look at the kernel's log, check the cable and replace the disk"],
  [Errno.ENOSPC, "free space on the file system (or the thin pool) that holds it and start again"],
  [Errno.EDQUOT, "raise the quota of the file system that holds it and start again"],
  [Errno.EROFS, "the device became read-only; look at the kernel's log and replace the disk"],
  [Errno.EPERM, "the device is read-only; remove its write protection"],
  [Errno.ENXIO, "the device is gone; check its cable and start again"],
  [Errno.ENODEV, "the device is gone; check its cable and start again"],
  [Errno.EINVAL, "the device refuses this alignment; start again with --direct off"],
]);

/**
 * The fault for `result` of a system call: minus errno, or 0 where the transfer ended early.
 * `operation` is a verb: read, write, zero, flush.
 */
export function diskFault(device: string, operation: string, offsetBytes: number, result: number): DiskFault {
  return new DiskFault(
    device,
    operation,
    offsetBytes,
    -result || 0,
    result === 0 ? endedEarly(operation) : describe(result),
  );
}

function describe(result: number): string {
  const advice = ADVICE.get(-result);
  return advice ? `${errnoText(result)}; ${advice}` : errnoText(result);
}

function endedEarly(operation: string): string {
  return operation === "read"
    ? "it ends here: it shrank since it was opened"
    : "the device took no more bytes; is it as large as it says? Replace the disk";
}
