/**
 * A hash worker: does the jobs of its ring until the owner closes it.
 *
 * Every context belongs to one worker, so what is hashed of it so far never leaves this thread. The memory region belongs to the
 * owner of the pool and stays mapped until the worker has ended.
 */
import { workerData } from "node:worker_threads";
import { EventFd } from "../kernel/eventfd.ts";
import { HashJobs } from "./hash-jobs.ts";
import type { HashWorkerStart } from "./hash-pool.ts";
import { HashRing } from "./hash-ring.ts";

/** Looks at an empty ring before sleeping: some 10 microseconds, less than a wake-up costs. */
const SPINS = 1000;

/** Runs until the owner closes the ring. A failure is told to the owner, who waits without an event loop, and thrown on. */
function main(start: HashWorkerStart): void {
  const ring = new HashRing(start.ring);
  const wake = EventFd.of(start.wakeFd);
  try {
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

function awaitJob(ring: HashRing, cursor: number): void {
  for (let spin = 0; spin < SPINS; spin++) {
    if (ring.submitted() !== cursor) return;
  }
  while (ring.submitted() === cursor && !ring.closing) ring.waitForJob(cursor);
}

main(workerData as HashWorkerStart);
