/**
 * How fast a disk becomes a torrent: `npm run bench -- capture [--bytes 2G] [--source NAME,...] [--only NAME,...]
 * [--rounds 3] [--json]`.
 *
 * An ext4 filesystem that is full of one file without zeros, as a loop device in memory, as a plain file in memory and
 * as a loop device on disk: ours (`--extents partclone`) beside partclone's own torrent mode, which hashes in one
 * thread. The limits of the machine are measured in the same rounds: reading the same bytes in the same way with
 * dd(1), SHA-1 by the runtime's library on one core and on all, our own in lanes on all (where the processor can), and
 * reading and hashing in one thread, which is what a program that copies can do on a core. Shares are of the library's
 * rate, which any program has. A rate is payload over the time from a program's start to its end.
 */
import { mkdirSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { size } from "../../src/cli/options.ts";
import { hasSha1Instructions } from "../../src/disk/sha1/processor.ts";
import { MiB } from "../../src/units.ts";
import { start } from "../harness/diskswarm.ts";
import { fillRandom, sparseFile } from "../harness/image.ts";
import { loopOver } from "../harness/loop.ts";
import { mountDevice } from "../harness/mounts.ts";
import { Child, run } from "../harness/process.ts";
import { Scope } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";
import { median, print, table } from "./shared/report.ts";
import { takeTurns } from "./shared/rounds.ts";
import { cannotMeasure, names, readSettings } from "./shared/settings.ts";
import {
  type Usage,
  usageCells,
  usageFigures,
  type UsageFigures,
  usageHead,
  usageOf,
  usageOfAll,
} from "./shared/usage.ts";

/** What of the filesystem is not the file: its own tables and journal. */
const FILESYSTEM_BYTES = 128 * MiB;

interface Source {
  readonly path: string;
  /** Where the file lies in the source: what the limits read. */
  readonly bytes: number;
  /** Programs that can do so read it past the page cache. */
  readonly isDirect: boolean;
  readonly folder: string;
}

interface Measured {
  readonly seconds: number;
  /** What was read or hashed in that time. */
  readonly bytes: number;
  readonly usage: Usage | null;
}

const watched = { watchMemory: { everyMs: 20 } };

async function ended(child: Child): Promise<void> {
  const { exitCode, stderr } = await child.ended;
  if (exitCode !== 0) throw new Error(`${child.describe()}: ${stderr}`);
}

async function ours(scope: Scope, { path, folder }: Source): Promise<Measured> {
  const beginMs = performance.now();
  const words = ["capture", path, "-o", join(folder, "image.torrent"), "--extents", "partclone"];
  const capturing = start(scope, words, watched);
  await capturing.expectExit(0);
  const taken = (performance.now() - beginMs) / 1000;
  const done = await capturing.done();
  return { seconds: taken, bytes: done.bytesTotal, usage: usageOf(capturing.child) };
}

/** `-t`: the torrent's data alone, without the blocks as files. */
async function partclone(scope: Scope, { path, folder, bytes }: Source): Promise<Measured> {
  needTools("partclone.ext4");
  const output = join(folder, "partclone");
  mkdirSync(output);
  const log = ["-L", join(folder, "partclone.log")];
  const beginMs = performance.now();
  const child = new Child(scope, ["partclone.ext4", "-c", "-t", "-q", "-s", path, "-O", `${output}/`, ...log], watched);
  await ended(child);
  const taken = (performance.now() - beginMs) / 1000;
  rmSync(output, { recursive: true });
  return { seconds: taken, bytes, usage: usageOf(child) };
}

async function reading(scope: Scope, { path, bytes, isDirect }: Source): Promise<Measured> {
  const how = ["bs=1M", `count=${Math.floor(bytes / MiB)}`, "status=none", ...(isDirect ? ["iflag=direct"] : [])];
  const beginMs = performance.now();
  const child = new Child(scope, ["dd", `if=${path}`, "of=/dev/null", ...how], watched);
  await ended(child);
  return { seconds: (performance.now() - beginMs) / 1000, bytes, usage: usageOf(child) };
}

/** That many processes of a program of `load/`, each of which hashes all the bytes, read from the source or not. */
function hashing(program: "hasher.ts" | "lanes.ts", processes: number, reads = false) {
  return async (scope: Scope, { path, bytes }: Source): Promise<Measured> => {
    const words = [join(import.meta.dir, "load", program), String(bytes), ...(reads ? [path] : [])];
    const beginMs = performance.now();
    const hashers = Array.from({ length: processes }, () => new Child(scope, [process.execPath, ...words], watched));
    await Promise.all(hashers.map(ended));
    const taken = (performance.now() - beginMs) / 1000;
    return { seconds: taken, bytes: bytes * processes, usage: usageOfAll(hashers) };
  };
}

const CORES = availableParallelism();
const CONTESTANTS: Record<string, (scope: Scope, source: Source) => Promise<Measured>> = {
  ours,
  partclone,
  "limit-read": reading,
  "limit-sha1-core": hashing("hasher.ts", 1),
  "limit-sha1-all": hashing("hasher.ts", CORES),
  ...(hasSha1Instructions() ? { "limit-lanes-all": hashing("lanes.ts", CORES) } : {}),
  "limit-read-sha1-core": hashing("hasher.ts", 1, true),
};

const SOURCES = ["loop-ram", "file-ram", "loop-disk"] as const;
type SourceName = (typeof SOURCES)[number];

export async function main(words: string[]): Promise<void> {
  const { bytes, source, only, rounds, json } = readSettings(
    {
      name: "capture",
      summary: "How fast a disk becomes a torrent: ours, partclone, and what this machine can do.",
      options: {
        bytes: size("how much the filesystem holds", "2G"),
        source: names(SOURCES, "what is captured"),
        only: names(Object.keys(CONTESTANTS), "who takes part"),
      },
    },
    words,
  );
  if (!isRoot) throw cannotMeasure("loop devices and mounts need root");
  const results: { source: SourceName; rows: RowWithShare[] }[] = [];
  for (const name of source) {
    const scope = new Scope();
    try {
      const prepared = await prepare(scope, name, bytes);
      const measured = await takeTurns(only, rounds, (contestant) => measure(contestant, prepared));
      results.push({ source: name, rows: withShares([...measured].map(([row, all]) => summarize(row, all))) });
    } finally {
      await scope.close();
    }
  }
  print(json, { bytes, rounds, cores: CORES, results }, () =>
    results.map(({ source: name, rows }) => `${name}\n${asTable(rows)}`).join("\n\n"),
  );
}

/** The filesystem is made and left; nothing of it is in a page cache but in that of a file in memory. */
async function prepare(scope: Scope, name: SourceName, bytes: number): Promise<Source> {
  const folder = name === "loop-disk" ? scope.tempDir() : scope.ramDir();
  const image = join(folder, "disk.raw");
  sparseFile(image, bytes + FILESYSTEM_BYTES);
  run(["mkfs.ext4", "-q", "-F", "-m", "0", image]);
  const filling = new Scope();
  try {
    const mounted = mountDevice(filling, loopOver(filling, image));
    sparseFile(join(mounted, "file"), bytes);
    fillRandom(join(mounted, "file"), bytes, 61);
  } finally {
    await filling.close();
  }
  const isLoop = name !== "file-ram";
  return { path: isLoop ? loopOver(scope, image) : image, bytes, isDirect: isLoop, folder };
}

async function measure(contestant: string, source: Source): Promise<Measured> {
  const scope = new Scope();
  try {
    // What an earlier one left in the device's page cache is read again by all.
    if (source.isDirect) run(["blockdev", "--flushbufs", source.path]);
    return await CONTESTANTS[contestant]!(scope, source);
  } finally {
    await scope.close();
  }
}

interface Row {
  readonly name: string;
  readonly bytesPerSecond: number;
  readonly seconds: readonly number[];
  readonly usage: UsageFigures | null;
}

/** `share`: of the lower of what can be read and what all cores can hash; null where these were not measured. */
type RowWithShare = Row & { readonly share: number | null };

function summarize(name: string, measured: readonly Measured[]): Row {
  const { bytes } = measured[0]!;
  return {
    name,
    bytesPerSecond: median(measured.map((one) => one.bytes / one.seconds)),
    seconds: measured.map((one) => one.seconds),
    usage: usageFigures(
      measured.map(({ usage }) => usage),
      bytes,
    ),
  };
}

function withShares(rows: readonly Row[]): RowWithShare[] {
  const rate = (name: string) => rows.find((row) => row.name === name)?.bytesPerSecond;
  const [read, hash] = [rate("limit-read"), rate("limit-sha1-all")];
  const limit = read === undefined || hash === undefined ? null : Math.min(read, hash);
  return rows.map((row) => ({ ...row, share: limit === null ? null : row.bytesPerSecond / limit }));
}

function asTable(rows: readonly RowWithShare[]): string {
  const head = ["", "MiB/s", "of min(read, SHA-1)", "s of each round", ...usageHead("")];
  return table(
    head,
    rows.map((row) => [
      row.name,
      (row.bytesPerSecond / MiB).toFixed(0),
      row.share?.toFixed(2) ?? "",
      row.seconds.map((one) => one.toFixed(2)).join(" "),
      ...usageCells(row.usage),
    ]),
  );
}
