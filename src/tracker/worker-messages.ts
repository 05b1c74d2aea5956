/** What the main thread and the tracker's thread tell each other. */
import type { SwarmCounts } from "./registry.ts";

export interface TrackerWorkerData {
  /** Bound by the main thread, which closes them after the thread has ended. */
  readonly tcpFd: number;
  readonly udpFd: number;
  /** The address bound. */
  readonly listen: string;
  readonly open: boolean;
  /** A client that has not sent a whole request after this long is dropped. */
  readonly idleMs: number;
  /** Abstract Unix socket of the server that answers what is not the tracker's. */
  readonly pagesSocket: string;
  readonly mailboxMemory: SharedArrayBuffer;
  readonly bellFd: number;
}

/** To the thread. A list of allowed info-hashes comes in parts; the last one puts it in force. */
export type TrackerMessage =
  | { readonly type: "allow"; readonly infoHashes: readonly string[]; readonly isLast: boolean }
  | { readonly type: "stats"; readonly id: number }
  | { readonly type: "stop" };

export interface TrackerStats {
  /** Peers of all swarms. */
  readonly peers: number;
  readonly swarms: readonly ({ readonly infoHash: string } & SwarmCounts)[];
}

/** From the thread. */
export type TrackerReport =
  | { readonly type: "stats"; readonly id: number; readonly stats: TrackerStats }
  | { readonly type: "ended" }
  | { readonly type: "failed"; readonly message: string };
