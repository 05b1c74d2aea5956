/** Stock BitTorrent clients as benchmarks run them: set for speed, their memory watched, their end told at once. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { libtorrent, startClient } from "../../harness/clients.ts";
import type { Machine } from "../../harness/network.ts";
import type { Child } from "../../harness/process.ts";
import type { Scope } from "../../harness/scope.ts";
import { needTools } from "../../harness/tools.ts";

export interface ClientTask {
  /** Names a tracker that every client can reach. */
  readonly torrent: string;
  /** Holds, or will hold, the torrent's one file. */
  readonly folder: string;
  readonly seeds: boolean;
  readonly port: number;
  /** HOST:PORT, for clients that can be told; the others ask the tracker. */
  readonly peers?: readonly string[];
  /** How often memory is looked at, in milliseconds. */
  readonly watchMs: number;
}

export interface Client {
  readonly child: Child;
  /** Settles when the client says that everything is there. */
  complete(): Promise<unknown>;
}

export type StartClient = (scope: Scope, machine: Machine, task: ClientTask) => Client;

const watched = ({ watchMs }: ClientTask) => ({ watchMemory: { everyMs: watchMs } });

/** With the settings that libtorrent recommends for speed. */
export const libtorrentClient: StartClient = (scope, machine, task) => {
  const at = { address: machine.address, port: task.port };
  const child = libtorrent(scope, task, at, { prefix: machine.prefix, ...watched(task) }, ["--fast"]);
  return { child, complete: () => child.waitForLine(/^(seeding|finished)/) };
};

export const aria2Client: StartClient = (scope, machine, task) => {
  needTools("aria2c");
  // Its progress line comes once a second; this says at once when everything is there.
  const hook = join(scope.tempDir(), "complete.sh");
  writeFileSync(hook, "#!/bin/sh\necho COMPLETE\n", { mode: 0o755 });
  const words = [
    "--no-conf",
    "--enable-dht=false",
    "--enable-dht6=false",
    "--disable-ipv6=true",
    `--interface=${machine.address}`,
    "--file-allocation=none",
    "--bt-enable-lpd=false",
    "--bt-max-peers=0",
    "--bt-tracker-interval=1",
    "--bt-request-peer-speed-limit=0",
    "--summary-interval=0",
    "--seed-ratio=0",
    `--dir=${task.folder}`,
    `--listen-port=${task.port}`,
    `--on-bt-download-complete=${hook}`,
    ...(task.seeds ? ["--bt-seed-unverified=true", "--allow-overwrite=true"] : []),
    task.torrent,
  ];
  const child = machine.spawn(scope, ["aria2c", ...words], watched(task));
  return { child, complete: () => child.waitForLine(/^COMPLETE/) };
};

export const transmissionClient: StartClient = (scope, machine, task) =>
  startClient(scope, "transmission", machine, { ...task, spawn: watched(task) });
