/**
 * What most deployment tests share: an image, its torrent and a seeder of ours, each peer on an address
 * of its own in 127.0.0.0/8, so that no namespace is needed.
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { capture, seed, start, type Run, type RunOptions, type Seeder } from "./diskswarm.ts";
import { stampedImage, type Extent } from "./image.ts";
import { freePort } from "./ports.ts";
import type { Scope } from "./scope.ts";

export const MIB = 1024 * 1024;
export const SEEDER_HOST = "127.0.0.2";
export const NODE_HOST = "127.0.0.1";
export const PIECE_BYTES = 256 * 1024;

export interface Image {
  readonly path: string;
  readonly lengthBytes: number;
  readonly torrent: string;
}

export interface ImageOptions {
  readonly seed?: number;
  /** Where the data is; holes elsewhere. Everywhere by default. */
  readonly extents?: readonly Extent[];
  readonly tracker?: string;
}

/** A stamped image and its torrent, captured by the program in pieces of 256 KiB. */
export async function capturedImage(scope: Scope, lengthBytes: number, options: ImageOptions = {}): Promise<Image> {
  const folder = scope.ramDir();
  const path = stampedImage(join(folder, "image.raw"), lengthBytes, options.seed ?? 1, options.extents);
  const tracker = options.tracker === undefined ? [] : ["--tracker", options.tracker];
  const torrent = await capture(scope, path, join(folder, "image.torrent"), "--piece-size", "256K", ...tracker);
  return { path, lengthBytes, torrent };
}

/** A seeder of ours on loopback. */
export async function loopbackSeeder(
  scope: Scope,
  torrent: string,
  source: string,
  flags: readonly string[] = [],
  options: RunOptions = {},
): Promise<Seeder> {
  return seed(scope, torrent, source, { host: SEEDER_HOST, port: await freePort(SEEDER_HOST) }, flags, options);
}

/** `deploy` on loopback, left running. A regular file needs `--force`, which is added. */
export async function startDeploy(
  scope: Scope,
  torrent: string,
  target: string,
  peers: readonly string[],
  flags: readonly string[] = [],
  options: RunOptions = {},
): Promise<Run> {
  const force = statSync(target, { throwIfNoEntry: false })?.isBlockDevice() ? [] : ["--force"];
  const at = ["--listen", NODE_HOST, "--port", String(await freePort(NODE_HOST))];
  return start(
    scope,
    ["deploy", torrent, target, ...at, ...peers.flatMap((peer) => ["--peer", peer]), ...force, ...flags],
    options,
  );
}

/** `deploy` on loopback to its end, which must be a proof. */
export async function deploy(
  scope: Scope,
  torrent: string,
  target: string,
  peers: readonly string[],
  flags: readonly string[] = [],
  options: RunOptions = {},
): Promise<Run> {
  const run = await startDeploy(scope, torrent, target, peers, flags, options);
  await run.expectExit(0);
  const done = await run.done();
  if (!done.flushed) throw new Error("done without a flush");
  return run;
}
