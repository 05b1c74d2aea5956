/**
 * A hash worker: does the jobs of its ring until the owner closes it.
 *
 * Every context belongs to one worker, so what is hashed of it so far never leaves this thread. The memory region belongs to the
 * owner of the pool and stays mapped until the worker has ended.
 */
import { workerData } from "node:worker_threads";
import { assert } from "../errors.ts";
import { EventFd } from "../kernel/eventfd.ts";
import { Errno, errnoText, makeThreadNicer } from "../kernel/libc.ts";
import { HashJobs } from "./hash-jobs.ts";
import type { HashWorkerStart } from "./hash-pool.ts";
import { HashRing } from "./hash-ring.ts";

/** Looks at an empty ring before sleeping: some 10 microseconds, less than a wake-up costs. */
const SPINS = 1000;

/** How much nicer a worker is that gives way: of a core that one other wants it gets a quarter, 1 GiB/s in four lanes. */
const NICE_STEPS = 5;

/** Runs until the owner closes the ring. A failure is told to the owner, who waits without an event loop, and thrown on. */
function main(start: HashWorkerStart): void {
  const ring = new HashRing(start.ring);
  const wake = EventFd.of(start.wakeFd);
  try {
    if (start.givesWay) giveWay();
    const jobs = new HashJobs(ring, start);
    while (!ring.closing) if (!jobs.work(wake)) awaitJob(ring, jobs.cursor);
    jobs.free();
  } catch (error) {
    ring.fail();
    wake.signal();
    throw error;
  } finally {
    ring.end();
  }
}

function giveWay(): void {
  const result = makeThreadNicer(NICE_STEPS);
  // A sandbox may know nothing of priorities; then it hashes as it would without.
  assert(result === 0 || result === -Errno.EPERM || result === -Errno.ENOSYS, `priority: ${errnoText(result)}`);
}

function awaitJob(ring: HashRing, cursor: number): void {
  for (let spin = 0; spin < SPINS; spin++) {
    if (ring.submitted() !== cursor) return;
  }
  while (ring.submitted() === cursor && !ring.closing) ring.waitForJob(cursor);
}

main(workerData as HashWorkerStart);
