/**
 * Who images the room: ours as its user runs it (`serve` on the server, `deploy URL` on the nodes), stock
 * BitTorrent clients under opentracker, and udpcast by multicast. A finished node goes on serving others
 * where the program can.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { CLIENT_PORT, seedersKnown, startOpentracker } from "../../harness/clients.ts";
import { type Event, start } from "../../harness/diskswarm.ts";
import type { Child } from "../../harness/process.ts";
import type { Scope } from "../../harness/scope.ts";
import { needTools } from "../../harness/tools.ts";
import { aria2Client, libtorrentClient, type StartClient } from "../shared/clients.ts";
import type { Room } from "./room.ts";

/** What a contestant has to work with. */
export interface Stage {
  readonly scope: Scope;
  readonly room: Room;
  /** How many of the room's nodes take part. */
  readonly nodes: number;
  /** The image, in a folder of its own. */
  readonly image: { readonly path: string; readonly folder: string; readonly bytes: number };
  /** For the stock clients: names opentracker on the server. */
  readonly torrent: { readonly path: string; readonly infoHash: Uint8Array };
  /** Where the nodes' targets belong: an empty folder for each. */
  readonly folderOf: (index: number) => string;
  /** `--memory` of our nodes. */
  readonly memory: string;
}

/** How far a node was at some time. */
export interface Sample {
  /** Milliseconds since the epoch. */
  readonly atMs: number;
  readonly bytesDone: number;
  readonly peers: number;
}

export interface Joined {
  readonly child: Child;
  readonly target: string;
  /** Settles with the time (milliseconds since the epoch) when everything was there, by the program's own word. */
  readonly completeMs: Promise<number>;
  /** Known for ours alone. */
  samples(): Sample[];
  /** Bytes by source, as the node counted them; known for ours alone. */
  sources(): readonly { peer: string; bytes: number }[];
}

export interface Serving {
  readonly children: readonly Child[];
  /** Starts a node's program. */
  join(index: number): Joined;
}

export type Contestant = (stage: Stage) => Promise<Serving>;

/** Seldom: dozens of processes are looked at, and the memory's high-water mark is read once more at the end. */
const WATCH_MS = 500;
const watched = { watchMemory: { everyMs: WATCH_MS } };

const ours: Contestant = async ({ scope, room: { server, nodes }, image, folderOf, memory }) => {
  const words = ["serve", image.path, "--listen", server.address];
  const serving = start(scope, words, { machine: server, ...watched });
  const started = await serving.event("start");
  const url = (started.images as [{ url: string }])[0].url;
  const join_ = (index: number): Joined => {
    const target = join(folderOf(index), "target");
    const machine = nodes[index]!;
    const how = ["--force", "--delta", "never", "--memory", memory, "--linger", "swarm", "--listen", machine.address];
    const run = start(scope, ["deploy", url, target, ...how], { machine, ...watched });
    const atMs = (event: Event) => Date.parse(event.time);
    return {
      child: run.child,
      target,
      completeMs: run.done().then(atMs),
      samples: () =>
        run.events
          .filter(({ event }) => event === "start" || event === "progress" || event === "done")
          .map((event) => ({
            atMs: atMs(event),
            bytesDone: Number(event.bytesDone ?? 0),
            peers: Number(event.peers ?? 0),
          })),
      sources: () => {
        const done = run.events.find(({ event }) => event === "done");
        return (done?.sources ?? []) as { peer: string; bytes: number }[];
      },
    };
  };
  return { children: [serving.child], join: join_ };
};

const untold = { samples: () => [], sources: () => [] };

/** A swarm of stock clients under opentracker. */
function swarmOf(startClient: StartClient): Contestant {
  return async ({ scope, room, torrent, image, folderOf }) => {
    const task = { torrent: torrent.path, port: CLIENT_PORT, watchMs: WATCH_MS };
    const tracker = await startOpentracker(scope, room.server, torrent.infoHash, watched);
    const seeder = startClient(scope, room.server, { ...task, folder: image.folder, seeds: true });
    await seedersKnown(room.server, tracker.url, torrent.infoHash, 1);
    return {
      children: [tracker.child, seeder.child],
      join: (index) => {
        const folder = folderOf(index);
        const { child, complete } = startClient(scope, room.nodes[index]!, { ...task, folder, seeds: false });
        return { child, target: join(folder, "image.raw"), completeMs: complete().then(Date.now), ...untold };
      },
    };
  };
}

/** One sender to all at once by multicast: it begins when the last receiver is there. */
const udpcast: Contestant = async ({ scope, room: { server, nodes: machines }, nodes, image, folderOf }) => {
  needTools("udp-sender", "udp-receiver");
  // Its own rendezvous, 224.0.0.1, does not reach other namespaces; this group does.
  const common = ["--interface", "eth0", "--nokbd", "--no-progress", "--mcast-rdv-address", "239.77.0.1"];
  const words = ["--file", image.path, "--min-receivers", String(nodes), "--full-duplex", ...common];
  const sender = server.spawn(scope, ["udp-sender", ...words], watched);
  return {
    children: [sender],
    join: (index) => {
      const target = join(folderOf(index), "target");
      const child = machines[index]!.spawn(scope, ["udp-receiver", "--file", target, ...common], watched);
      const completeMs = child.ended.then(({ exitCode, stderr }) => {
        if (exitCode !== 0) throw new Error(`udp-receiver ended with ${exitCode}: ${stderr.slice(-300)}`);
        return Date.now();
      });
      return { child, target, completeMs, ...untold };
    },
  };
};

export const CONTESTANTS = {
  ours,
  libtorrent: swarmOf(libtorrentClient),
  aria2: swarmOf(aria2Client),
  udpcast,
} satisfies Record<string, Contestant>;

export type ContestantName = keyof typeof CONTESTANTS;
export const CONTESTANT_NAMES = Object.keys(CONTESTANTS) as readonly ContestantName[];

/** An empty folder below `parent` for the node of that index. */
export function nodeFolder(parent: string, index: number): string {
  const folder = join(parent, `node-${index}`);
  mkdirSync(folder);
  return folder;
}
