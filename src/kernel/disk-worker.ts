/**
 * A disk thread of the epoll reactor: takes a job, makes the blocking system call, hands the result back.
 *
 * The memory that is read or written belongs to whoever submitted the operation to the reactor.
 */
import { workerData } from "node:worker_threads";
import { type DiskWorkerData, JobBoard, JobKind } from "./disk-jobs.ts";
import { EventFd } from "./eventfd.ts";
import { Errno, fallocate, fdatasync, pread, pwrite } from "./libc.ts";

function work({ board: shared, wakeFd }: DiskWorkerData): void {
  const board = new JobBoard(shared);
  const bell = EventFd.of(wakeFd);
  board.announceReady();
  for (let slot = board.take(); slot >= 0; slot = board.take()) {
    let result = perform(board, slot);
    while (result === -Errno.EINTR) result = perform(board, slot);
    if (board.complete(slot, result)) bell.signal();
  }
  board.announceEnded();
}

function perform(board: JobBoard, slot: number): number {
  const fd = board.fd(slot);
  switch (board.kind(slot)) {
    case JobKind.read:
      return pread(fd, board.address(slot), board.lengthBytes(slot), board.offsetBytes(slot));
    case JobKind.write:
      return pwrite(fd, board.address(slot), board.lengthBytes(slot), board.offsetBytes(slot));
    case JobKind.fallocate:
      return fallocate(fd, board.mode(slot), board.offsetBytes(slot), board.lengthBytes(slot));
    case JobKind.sync:
      return fdatasync(fd);
  }
}

work(workerData as DiskWorkerData);
