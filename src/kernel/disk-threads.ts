/**
 * The reactor's side of the disk threads: hands jobs out, keeps those that find no place, collects results.
 *
 * Threads are started with the first job, so a reactor that only serves sockets has none.
 */
import { ExitCode, Failure } from "../errors.ts";
import { nowMs } from "./clock.ts";
import { type DiskWorkerData, JOBS_MAX, JobBoard, type JobKind } from "./disk-jobs.ts";
import { EventFd } from "./eventfd.ts";
import { startWorker } from "./threads.ts";

/** Two threads keep a disk busy while one is in the kernel; more help only where there are cores and queues to fill. */
const THREADS = navigator.hardwareConcurrency > 2 ? 4 : 2;
/** A thread that has not started by then never will: the executable lacks its module. */
const START_MS_MAX = 30_000;
const END_MS_MAX = 10_000;

export class DiskThreads {
  readonly #board = new JobBoard();
  readonly #bell = EventFd.create();
  readonly #free = new Int32Array(JOBS_MAX);
  #freeCount = JOBS_MAX;
  /** The reactor's operation of each job slot. */
  readonly #operation = new Int32Array(JOBS_MAX);
  #threads = 0;
  #startedMs = 0;
  #failure = "";

  constructor() {
    for (let slot = 0; slot < JOBS_MAX; slot++) this.#free[slot] = slot;
  }

  /** Readable when a job was completed while `sleeping(true)` held. */
  get wakeFd(): number {
    return this.#bell.fd;
  }

  /** False while it is known that all threads run: a wait need not look after them. */
  get starting(): boolean {
    return this.#threads > 0 && this.#board.threadsReady < this.#threads;
  }

  /** Hands a job out. False: all places are taken, try again after `collect`. */
  submit(
    operation: number,
    kind: JobKind,
    fd: number,
    address: number,
    lengthBytes: number,
    offsetBytes: number,
    mode: number,
  ): boolean {
    if (this.#freeCount === 0) return false;
    if (this.#threads === 0) this.#start();
    const slot = this.#free[--this.#freeCount];
    this.#operation[slot] = operation;
    this.#board.submit(slot, kind, fd, address, lengthBytes, offsetBytes, mode);
    return true;
  }

  /** Reports every job that is done since the last call. */
  collect(report: (operation: number, result: number) => void): void {
    for (let slot = this.#board.collect(); slot >= 0; slot = this.#board.collect()) {
      this.#free[this.#freeCount++] = slot;
      report(this.#operation[slot], this.#board.result(slot));
    }
  }

  /** Call with true before a wait and with false after it. Returns false when there is something to collect already. */
  sleeping(asleep: boolean): boolean {
    this.#board.setOwnerAsleep(asleep);
    return !(asleep && this.#board.hasCompletions);
  }

  /** Silences the bell after `wakeFd` was readable. */
  awake(): void {
    this.#bell.reset();
  }

  /** Throws when jobs wait for threads that cannot start. */
  check(): void {
    const late = this.starting && this.#board.threadsReady === 0 && nowMs() - this.#startedMs > START_MS_MAX;
    if (!late && this.#failure === "") return;
    throw new Failure(ExitCode.failed, "disk-threads", `the threads that access the disk do not start${this.#failure}`);
  }

  /** Ends the threads. No job may be out. */
  close(): void {
    // A thread that still starts could ring the bell later: then its descriptor is left open rather than reused.
    if (this.#threads === 0 || this.#board.end(this.#threads, END_MS_MAX)) this.#bell.close();
  }

  #start(): void {
    this.#startedMs = nowMs();
    const data: DiskWorkerData = { board: this.#board.shared, wakeFd: this.#bell.fd };
    for (; this.#threads < THREADS; this.#threads++) {
      const worker = startWorker("kernel/disk-worker", data);
      worker.addEventListener("error", (event) => {
        this.#failure = `: ${event.message}`;
      });
      worker.unref();
    }
  }
}
