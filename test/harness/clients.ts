/** Stock BitTorrent clients and opentracker, each in a machine of its own and set to do nothing but the torrent. */
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Machine } from "./network.ts";
import { Child, run, until, type SpawnOptions } from "./process.ts";
import type { Scope } from "./scope.ts";
import { needTools, PYTHON } from "./tools.ts";

const INTEROP = join(import.meta.dir, "..", "interop");
export const CLIENT_PORT = 6881;
const TRACKER_PORT = 6969;

export interface ClientOptions {
  readonly torrent: string;
  /** The folder that holds, or will hold, the torrent's file or folder. */
  readonly folder: string;
  readonly seeds: boolean;
  /** Try obfuscated connections first, as most of these clients do out of the box. */
  readonly encryption?: boolean;
  /** HOST:PORT; clients other than libtorrent find peers through the torrent's tracker alone. */
  readonly peers?: readonly string[];
  /** To listen on; CLIENT_PORT by default. */
  readonly port?: number;
  readonly spawn?: SpawnOptions;
}

export interface Client {
  readonly child: Child;
  /** Resolves when the client serves everything. */
  complete(): Promise<unknown>;
}

export type StockClient = "aria2" | "libtorrent" | "transmission";
export const STOCK_CLIENTS: readonly StockClient[] = ["aria2", "libtorrent", "transmission"];

export function startClient(scope: Scope, kind: StockClient, machine: Machine, options: ClientOptions): Client {
  return STARTERS[kind](scope, machine, options);
}

type Starter = (scope: Scope, machine: Machine, options: ClientOptions) => Client;

const STARTERS: Record<StockClient, Starter> = {
  aria2: startAria2,
  libtorrent: startLibtorrent,
  transmission: startTransmission,
};

function startAria2(scope: Scope, machine: Machine, options: ClientOptions): Client {
  needTools("aria2c");
  const child = machine.spawn(scope, [
    "aria2c",
    "--no-conf",
    `--dir=${options.folder}`,
    `--listen-port=${CLIENT_PORT}`,
    "--enable-dht=false",
    "--enable-dht6=false",
    "--bt-enable-lpd=false",
    "--file-allocation=none",
    "--seed-ratio=0",
    "--summary-interval=1",
    "--disable-ipv6=true",
    "--bt-tracker-interval=2",
    ...(options.seeds ? ["--check-integrity=true", "--allow-overwrite=true"] : []),
    `--bt-min-crypto-level=${options.encryption ? "arc4" : "plain"}`,
    "--bt-require-crypto=false",
    options.torrent,
  ]);
  // "SEED" stands in the progress line from the moment on that everything is there.
  return { child, complete: () => child.waitForLine(/\bSEED\b|Seeding is over|Verification finished successfully/) };
}

function startLibtorrent(scope: Scope, machine: Machine, options: ClientOptions): Client {
  const child = libtorrent(scope, options, { address: "0.0.0.0", port: CLIENT_PORT }, { prefix: machine.prefix });
  return { child, complete: () => child.waitForLine(/^(seeding|finished)/) };
}

/** A libtorrent peer anywhere; lines as `libtorrent_peer.py` says. */
export function libtorrent(
  scope: Scope,
  options: ClientOptions,
  at: { address: string; port: number },
  spawn: SpawnOptions = {},
  flags: readonly string[] = [],
): Child {
  return new Child(
    scope,
    [
      PYTHON,
      join(INTEROP, "libtorrent_peer.py"),
      options.torrent,
      options.folder,
      "--address",
      at.address,
      "--port",
      String(at.port),
      "--encryption",
      options.encryption ? "prefer" : "disabled",
      ...(options.seeds ? ["--seed"] : []),
      ...(options.peers ?? []).flatMap((peer) => ["--peer", peer]),
      ...flags,
    ],
    spawn,
  );
}

/** A v1 torrent of a file or folder, made by libtorrent. */
export function libtorrentMake(source: string, torrent: string, pieceBytes: number, ...trackers: string[]): string {
  run([PYTHON, join(INTEROP, "libtorrent_make.py"), source, torrent, String(pieceBytes), ...trackers]);
  return torrent;
}

function startTransmission(scope: Scope, machine: Machine, options: ClientOptions): Client {
  needTools("transmission-cli");
  const config = join(scope.tempDir(), "config");
  mkdirSync(config);
  writeFileSync(
    join(config, "settings.json"),
    JSON.stringify({
      "bind-address-ipv4": machine.address,
      "dht-enabled": false,
      "lpd-enabled": false,
      "utp-enabled": false,
      "pex-enabled": true,
      "port-forwarding-enabled": false,
      preallocation: 0,
      "rename-partial-files": false,
      "ratio-limit-enabled": false,
    }),
  );
  const child = machine.spawn(
    scope,
    [
      // Its status line would else arrive when 4 KiB of it are full.
      "stdbuf",
      "--output=0",
      "transmission-cli",
      "--config-dir",
      config,
      "--download-dir",
      options.folder,
      "--port",
      String(options.port ?? CLIENT_PORT),
      "--no-portmap",
      "--no-uplimit",
      "--no-downlimit",
      options.encryption ? "--encryption-preferred" : "--encryption-tolerated",
      ...(options.seeds ? ["--verify"] : []),
      options.torrent,
    ],
    options.spawn,
  );
  return { child, complete: () => child.waitForLine(/^Seeding/) };
}

export interface Tracker {
  readonly child: Child;
  readonly url: string;
}

/** opentracker as the tracker of one info hash; resolves when it answers. */
export async function startOpentracker(
  scope: Scope,
  machine: Machine,
  infoHash: Uint8Array,
  options: SpawnOptions = {},
): Promise<Tracker> {
  needTools("opentracker", "curl");
  const folder = scope.tempDir();
  // It chroots there and gives up root.
  chmodSync(folder, 0o755);
  // Debian builds it with an allow list, which it opens after the chroot.
  writeFileSync(join(folder, "allowed"), `${Buffer.from(infoHash).toString("hex")}\n`);
  const port = String(TRACKER_PORT);
  const words = ["-i", machine.address, "-p", port, "-P", port, "-d", folder, "-w", "/allowed"];
  const child = machine.spawn(scope, ["opentracker", ...words], options);
  const url = trackerUrl(machine);
  await until("opentracker answers", () => scrape(machine, url, infoHash) !== null);
  return { child, url };
}

/** The announce URL that torrents name when `machine` is to be their tracker. */
export function trackerUrl(machine: Machine): string {
  return `http://${machine.address}:${TRACKER_PORT}/announce`;
}

/** Waits until the tracker knows `seeders` complete peers of the torrent. */
export async function seedersKnown(
  machine: Machine,
  url: string,
  infoHash: Uint8Array,
  seeders: number,
): Promise<void> {
  await until(`${url} knows ${seeders} seeders`, () => (scrape(machine, url, infoHash) ?? 0) >= seeders);
}

/** How many complete peers a tracker knows (BEP 48), asked from inside `machine`; null without an answer. */
function scrape(machine: Machine, url: string, infoHash: Uint8Array): number | null {
  const query = [...infoHash].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
  const argv = [
    ...machine.prefix,
    "curl",
    "--silent",
    "--max-time",
    "2",
    `${url.replace("announce", "scrape")}?info_hash=${query}`,
  ];
  const result = Bun.spawnSync(argv, { stdin: "ignore", stdout: "pipe", stderr: "ignore" });
  const match = /8:completei(\d+)e/.exec(result.stdout.toString("latin1"));
  if (match) return Number(match[1]);
  // opentracker answers an empty dictionary for a torrent nobody announced yet.
  return result.exitCode === 0 && result.stdout.toString("latin1").startsWith("d") ? 0 : null;
}
