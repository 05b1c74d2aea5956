/**
 * Starts the program's threads, from source and from the compiled executable alike.
 *
 * `bun build --compile` embeds a worker only if it is an entry point of its own: build.ts lists
 * WORKER_ENTRIES (paths below src/) after main.ts and passes `--root=src`, so that src/peer/worker.ts
 * becomes /$bunfs/root/peer/worker.js. From source the file beside this one is loaded.
 */

/** Every module that `startWorker` starts, relative to src/. */
export const WORKER_ENTRIES = [
  "peer/worker.ts",
  "tracker/worker.ts",
  "disk/hash-worker.ts",
  "image/capture-worker.ts",
  "image/verify-worker.ts",
  "kernel/disk-worker.ts",
] as const;

type WithoutSuffix<Path extends string> = Path extends `${infer Name}.ts` ? Name : never;
/** A worker by its path below src/, without suffix. */
export type WorkerName = WithoutSuffix<(typeof WORKER_ENTRIES)[number]>;

const EMBEDDED_ROOT = "/$bunfs/root/";
const isCompiled = import.meta.url.includes("/$bunfs/");

/**
 * Starts a thread. `data` (structured clone; a SharedArrayBuffer is shared) is `workerData` of
 * node:worker_threads in it, there from its first line. The thread starts even if the caller blocks right
 * away; it ends when its module has run through and it listens to nothing, or by `terminate`.
 */
export function startWorker(name: WorkerName, data?: unknown): Worker {
  const url = isCompiled ? `file://${EMBEDDED_ROOT}${name}.js` : new URL(`../${name}.ts`, import.meta.url).href;
  // Bun hands `workerData` over for its own Worker too; the DOM's type does not know it.
  return new Worker(url, { workerData: data } as WorkerOptions);
}
