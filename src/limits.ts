/**
 * Every limit of the program with its reason. A queue, table or message without an entry here is a bug.
 */
import { KiB, MiB } from "./units.ts";

/** What every client accepts in one request: libtorrent and Transmission reject more (BEP 3 in practice). */
export const BLOCK_BYTES = 16 * KiB;
/** Largest block offered between our own peers (BEP 10 `ds_block`): one slab. */
export const BLOCK_BYTES_MAX = 1 * MiB;
/** Largest frame accepted other than bitfield: length prefix plus a block of the largest size. */
export const FRAME_BYTES_MAX = BLOCK_BYTES_MAX + 16;
/** Piece sizes are powers of two in this range: below, hash lists grow; above, EZIO's buffers end. */
export const PIECE_BYTES_MIN = 16 * KiB;
export const PIECE_BYTES_MAX = 16 * MiB;
/** Capture aims at this many pieces: the tail of a swarm costs log2(N)/pieces of the whole. */
export const PIECES_WANTED = 4000;
/** A torrent with more extents than this is refused: 2 million extents are 48 MB of tables. */
export const EXTENTS_MAX = 2_000_000;
/** Capture merges neighbours until at most this many extents are left. */
export const EXTENTS_CAPTURE_MAX = 60_000;
/** Largest .torrent read: 2 million extents of 60 bytes and their pieces stay below it. */
export const TORRENT_BYTES_MAX = 192 * MiB;
/** Nesting of bencode accepted anywhere: a torrent needs 5. */
export const BENCODE_DEPTH_MAX = 32;
/** Requests of one remote peer that wait here; announced to it as `reqq` (BEP 10). */
export const REQUESTS_QUEUED_MAX = 512;
/** Without a `reqq` of the remote peer, this many requests are outstanding at most (libtorrent's default). */
export const REQUESTS_OUTSTANDING_DEFAULT = 250;
/** The disk's first bytes, written last so that a half-written disk never boots: boot sector, primary GPT, superblocks. */
export const HEAD_BYTES = 128 * KiB;
/** Smallest slab pool: below, nothing can be received while something is written. */
export const POOL_BYTES_MIN = 16 * MiB;
