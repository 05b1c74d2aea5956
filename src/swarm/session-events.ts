/** What a session is configured with, and what it tells its swarm (or its metadata fetch). */
import type { Session } from "./session.ts";

export interface SessionConfig {
  readonly infoHash: Uint8Array;
  readonly peerId: Uint8Array;
  /** null while only metadata is fetched. */
  readonly pieceCount: number | null;
  readonly pieceBytes: number;
  readonly totalBytes: number;
  readonly slabBytes: number;
  readonly blockBytesMax: number;
  /** Packed blocks (`ds_zstd`) are offered and taken. */
  readonly packedBlocks: boolean;
}

/** What a session tells its swarm, in the middle of an event; the swarm may write to the session from it. */
export interface SessionEvents {
  readonly nowMs: number;
  /** Our handshake may be written: at once when we dialled, else when the info hash was right. */
  opened(session: Session): void;
  remoteHas(session: Session, piece: number): void;
  /** The bitfield, have-all or have-none arrived. */
  remoteHasSet(session: Session): void;
  remoteChoked(session: Session): void;
  remoteUnchoked(session: Session): void;
  remoteInterestChanged(session: Session): void;
  weHave(piece: number): boolean;
  /** A request of the remote peer was queued to be served. */
  uploadQueued(session: Session, piece: number): void;
  /** A block's header arrived for an outstanding request: claim it? */
  blockArriving(session: Session, piece: number, begin: number, length: number): boolean;
  /** The claimed block that payload* names is complete. */
  blockReceived(session: Session): void;
  /** Likewise, and has still to be inflated: it stays claimed until that was done. */
  packedReceived(session: Session): void;
  /** An outstanding request came to nothing: turned down by the remote peer, or (`ours`) its answer could not be taken. */
  rejected(session: Session, piece: number, begin: number, length: number, ours: boolean): void;
  suggested(session: Session, piece: number): void;
  extended(session: Session, extendedId: number, payload: Uint8Array): void;
  /** The outbox was emptied: write what waits. */
  room(session: Session): void;
  /** There is something to send or to serve. */
  wake(session: Session): void;
}
