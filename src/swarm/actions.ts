/**
 * What a `Swarm` asks of its host (the reactor thread, or the simulator), and the plain values of that contract.
 *
 * The host only queues inside these calls: it never calls back into the swarm from them. All buffers belong to
 * the host; the swarm writes frames into outboxes that the host lends (`SessionBuffers`, `Session.swapOutbox`).
 */
import type { PeerAddress } from "../wire/address.ts";
import type { PieceIndex } from "../units.ts";
import type { Session } from "./session.ts";

export type CloseKind =
  | "fault"
  | "banned"
  | "duplicate"
  | "self"
  | "idle"
  | "full"
  | "timeout"
  | "seed-to-seed"
  | "wrong-torrent"
  | "encrypted"
  | "shutdown";

export interface CloseReason {
  readonly kind: CloseKind;
  /** One sentence for the log. */
  readonly text: string;
}

/** Where a peer's address was learned. */
export type PeerOrigin = "tracker" | "pex" | "lsd" | "user";

/** For logs and the progress line; never one per block. */
export type SwarmReport =
  | {
      readonly kind: "peer-connected";
      readonly address: PeerAddress;
      readonly client: string;
      readonly outgoing: boolean;
    }
  /** `reason` is null where the remote peer or the network ended the connection. */
  | { readonly kind: "peer-dropped"; readonly address: PeerAddress; readonly reason: CloseReason | null }
  | { readonly kind: "banned"; readonly address: PeerAddress; readonly piece: PieceIndex }
  | { readonly kind: "snubbed"; readonly address: PeerAddress }
  | { readonly kind: "piece-failed"; readonly piece: PieceIndex; readonly sources: number }
  | { readonly kind: "complete" };

/** Memory lent to a session by the host until `disconnected` was called for it. */
export interface SessionBuffers {
  /**
   * Where frames to send are written. At least `OUTBOX_BYTES_MIN`; `OUTBOX_BYTES` lets it also serve
   * metadata (BEP 9). Every buffer given to `Session.swapOutbox` is as long as this one.
   */
  readonly outbox: Uint8Array;
}

/** Frames waiting to be sent: bytes [0, lengthBytes) of `buffer`. */
export interface Outbox {
  readonly buffer: Uint8Array;
  readonly lengthBytes: number;
}

export interface SwarmActions {
  /**
   * May bytes [begin, begin + length) of the piece be requested? True keeps memory for them from now on; it is
   * true again for bytes already kept. False: no memory now; the swarm asks again after `memoryFreed`.
   * The range never crosses a multiple of `slabBytes` inside the piece.
   */
  reserve(piece: PieceIndex, begin: number, length: number): boolean;
  /** All progress of the piece is dropped: free its memory and its hash. No session receives into it any more. */
  discard(piece: PieceIndex): void;
  /** Connect; answered by `Swarm.outgoing` or `Swarm.dialFailed`. */
  dial(address: PeerAddress): void;
  /** End the connection; answered by `Swarm.disconnected` once the kernel is done with its buffers. */
  close(session: Session, reason: CloseReason): void;
  /** The outbox or the upload queue got something: look at the session after this event. May be called many times in one. */
  wake(session: Session): void;
  report(event: SwarmReport): void;
}
