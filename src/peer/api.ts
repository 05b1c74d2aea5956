/**
 * What the rest of the program says to a peer and hears from it.
 *
 * A peer (seeding or deploying: the same code) runs in a worker thread with its own reactor; the main
 * thread holds a `PeerHandle`. Everything here crosses threads as plain data.
 */
import type { TailContent } from "../disk/tail-store.ts";
import type { FitPermits } from "../disk/target.ts";
import type { ExitCode } from "../errors.ts";
import type { PeerAddress } from "../wire/address.ts";

export interface PeerOptions {
  /** `deploy` writes the target, `seed` serves a complete source. */
  readonly role: "deploy" | "seed";
  /** The whole .torrent file, or what a magnet link tells (the metadata then comes from the swarm, BEP 9). */
  readonly torrent: Uint8Array | { readonly infoHash: Uint8Array; readonly name: string | null };
  /** The torrent's signature was checked against a trusted key: pieces are proven by its list of SHA-256. Needs a torrent. */
  readonly trusted: boolean;
  /** Target of a deployment, source of a seed. */
  readonly path: string;
  /** Seed only: the files that the source is a view of. */
  readonly madeOf?: readonly string[];
  /** Allows a target that is an ordinary file, and creates it where it is missing. */
  readonly force: boolean;
  /** How far the target may differ from the disk that the image was taken of. */
  readonly fit?: FitPermits;
  /** Address to listen on; null: all of IPv6 and IPv4. */
  readonly listen: string | null;
  readonly port: number;
  /** The port is in use: true takes a free one instead of failing. */
  readonly portMayChange: boolean;
  readonly peers: readonly PeerAddress[];
  /** Slab pool in bytes. */
  readonly memoryBytes: number;
  readonly io: "auto" | "uring" | "epoll";
  readonly direct: "auto" | "on" | "off";
  /** Whether what the target already holds is looked for before anything is fetched. */
  readonly delta: "auto" | "always" | "never";
  /** Seed only: hash the whole source first. */
  readonly check: boolean;
  /** How long a finished node goes on serving, in ms; "swarm": until no connected peer still downloads. */
  readonly lingerMs: number | "swarm";
  /** How long having nobody to fetch from is borne, in ms. */
  readonly timeoutMs: number;
  /** Largest block requested from and served to our own kind, in bytes; 16384 turns large blocks off. */
  readonly blockBytesMax: number;
  /** Blocks may be sent and received compressed among our own kind. */
  readonly compress: boolean;
}

/** One remote peer's share in what was fetched. */
export interface SourceShare {
  readonly peer: string;
  readonly bytes: number;
}

export interface PeerStats {
  readonly phase: "metadata" | "check" | "fetch" | "flush" | "serve";
  /** Bytes of the image that are proven on the target (in phase check: bytes read so far). */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** Payload bytes received and used. */
  readonly bytesFetched: number;
  /** Bytes found on the target already. */
  readonly bytesReused: number;
  readonly bytesUploaded: number;
  /** Payload as it crossed the wire, received and sent: less than the above where blocks were compressed. */
  readonly bytesReceived: number;
  readonly bytesSent: number;
  /** Bytes of the pieces that are still missing. */
  readonly bytesLeft: number;
  readonly piecesMissing: number;
  readonly peers: number;
}

export type PeerEvent =
  | {
      readonly type: "listening";
      readonly port: number;
      readonly backend: "uring" | "epoll";
      readonly note: string | null;
    }
  /** A magnet's metadata arrived: the raw info dictionary. */
  | { readonly type: "metadata"; readonly infoBytes: Uint8Array; readonly name: string; readonly bytesTotal: number }
  /** About once a second, and at each change of phase. */
  | { readonly type: "progress"; readonly stats: PeerStats }
  | {
      readonly type: "log";
      readonly level: "debug" | "info" | "warning";
      readonly code: string;
      readonly message: string;
    }
  /** Deploy: everything is proven and flushed. Seed never says it. Lingering follows. */
  | {
      readonly type: "done";
      readonly stats: PeerStats;
      readonly flushed: true;
      readonly seconds: number;
      readonly sources: readonly SourceShare[];
      /** What has no place on a target that is smaller than the image; proven like the rest, and dropped. */
      readonly tail: TailContent | null;
    }
  | { readonly type: "failed"; readonly exitCode: ExitCode; readonly code: string; readonly message: string };

export interface PeerHandle {
  /** The latest known figures, for announces. */
  readonly stats: PeerStats;
  /** Addresses that a tracker, local discovery or the user named. */
  addPeers(addresses: readonly PeerAddress[], origin: "tracker" | "lsd" | "user"): void;
  /** Ends the peer in good order; a target that is half written stays one that a later run continues. */
  stop(): void;
  /** Resolves when the peer has ended (lingered out, or stopped); rejects with a Failure. */
  readonly finished: Promise<{ readonly interrupted: boolean }>;
}
