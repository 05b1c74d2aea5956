/**
 * Every number of the swarm's policy with its reason, and the options of a `Swarm`.
 *
 * Everyone in a deployment is a friend and wants everything: there is no tit-for-tat, only an order of who is
 * served first. Slots, offers and suggestions were swept with `test/sim/run.ts`; the time-outs were not.
 */
import { KiB, MiB } from "../units.ts";
import { BLOCK_BYTES } from "../limits.ts";
import type { Random } from "./random.ts";

/** The grain of progress inside a piece: what every client serves in one request. */
export const UNIT_BYTES = BLOCK_BYTES;

/** Smallest outbox: both handshakes and a few hundred frames fit. */
export const OUTBOX_BYTES_MIN = 2 * KiB;
/** Outbox that also holds one 16 KiB block of metadata (BEP 9) and its dictionary. */
export const OUTBOX_BYTES = 24 * KiB;

export interface SwarmTuning {
  /** Our `ds_block` offer: the largest block requested from or sent to our own kind. 16 KiB switches it off. */
  readonly blockBytesMax: number;
  /** Our `ds_zstd` offer: blocks come packed where the sender finds that worth while. */
  readonly packedBlocks: boolean;
  /** Least of a slice of our line (`line.ts`), however slow it is. */
  readonly sliceBytesMin: number;
  /** Requested and not yet received, per source, to begin with; grows to four times this with rate * latency. */
  readonly outstandingBytesPerSource: number;
  /** Pieces begun and not yet fully received; of pieces smaller than what is outstanding per source more. */
  readonly piecesInFlightMax: number;
  /** Connections that we dial, including those still being dialled. */
  readonly dialMax: number;
  /** Connections that we accept. */
  readonly acceptMax: number;
  /** Other clients served at the same time: 4 on a node, 6 on the seeder. Peers of our own kind get grants. */
  readonly uploadSlots: number;
  /** A source that has requests and sends nothing for this long loses them to others. */
  readonly snubTimeoutMs: number;
  /** A peer that sends nothing at all for this long is dropped (BEP 3: two minutes, plus some delay). */
  readonly idleTimeoutMs: number;
  /** A connection whose handshake takes longer is dropped: it holds one of few places. */
  readonly handshakeTimeoutMs: number;
}

export interface SwarmOptions extends SwarmTuning {
  /** SHA-1 of the info dictionary, 20 bytes. */
  readonly infoHash: Uint8Array;
  /** Ours, 20 bytes. */
  readonly peerId: Uint8Array;
  readonly pieceCount: number;
  readonly pieceBytes: number;
  readonly totalBytes: number;
  /** Where others reach us; 0: nowhere. */
  readonly listenPort: number;
  /** Requests never cross a multiple of this inside a piece. A power of two, at least 16 KiB. */
  readonly slabBytes: number;
  readonly random: Random;
  /** The raw info dictionary to serve by BEP 9, or null. */
  readonly metadata: Uint8Array | null;
  /** BEP 27: no peer exchange. */
  readonly isPrivate: boolean;
  /** Never downloads, whatever it lacks. */
  readonly seedOnly: boolean;
}

/** Where a torrent starts; the host lowers the byte values when it has little memory. */
export const TUNING_DEFAULT: SwarmTuning = {
  // With 16 KiB blocks a node spends 1.6 times the CPU (`npm run bench -- pair`); requests are cut to a quarter of what is outstanding.
  blockBytesMax: 1 * MiB,
  // The host says yes where it can inflate.
  packedBlocks: false,
  sliceBytesMin: UNIT_BYTES,
  // 8 ms of a gigabit link: covers a LAN's latency and the scheduling of a busy sender.
  outstandingBytesPerSource: 1 * MiB,
  // One more than are granted at a time: a node then takes what is offered, and begins little that it has to wait for.
  // The three go together: with another alone each of them is worse (decision 0014).
  piecesInFlightMax: 7,
  dialMax: 10,
  acceptMax: 20,
  uploadSlots: 4,
  snubTimeoutMs: 10_000,
  idleTimeoutMs: 150_000,
  handshakeTimeoutMs: 10_000,
};

/** The seeder serves more at once: it is the only one at the start, and it has nothing else to do. */
export const UPLOAD_SLOTS_SEEDER = 6;

/** Outstanding bytes grow with the rate up to this multiple of `outstandingBytesPerSource`: 8 MiB keep a link of 10 Gbit/s busy. */
export const OUTSTANDING_GROWTH_MAX = 8;
/**
 * A source is asked again when its requests have fallen to this share of its budget: small blocks are then asked for,
 * sent and received many at a time. A quarter of the budget is one of the largest blocks, so those are not delayed.
 */
export const REFILL_BELOW = 3 / 4;
/** A source should always have this much time's worth of requests: twice a loaded LAN's answer time. */
export const OUTSTANDING_AHEAD_MS = 50;
/** Entries of the ring of outstanding requests: 4 MiB in 16 KiB blocks is 256; `reqq` allows up to this. */
export const REQUESTS_OUTSTANDING_MAX = 512;

/** A source that answers nothing is dropped after so many snub time-outs: its place is worth more to another. */
export const SNUBS_BORNE = 6;
/**
 * What is being sent to a peer, 1 MiB at most, must be gone after this long (17 KiB/s): a peer that asks and does not
 * read pins as much memory, and twenty of them a small node's whole pool.
 */
export const SEND_TIMEOUT_MS = 60_000;
/**
 * Messages that change nothing (HAVE of what it has, interest, choke and cancel to and fro) taken from one peer between
 * two ticks: an endgame cancels some hundreds; more is only work for us.
 */
export const FUTILE_FRAMES_PER_TICK_MAX = 2_000;

/** A silent connection gets a keep-alive after this long; well below the two minutes of BEP 3, far above aria2's 5 s flood limit. */
export const KEEP_ALIVE_MS = 90_000;
/** Housekeeping interval: rates, snubs, slots, dialling. */
export const TICK_MS = 250;

/** Peers called at random before we know who is of our own network; with more, racks have too few connections inside. */
export const DIALS_FAR_FIRST = 4;
/** The other places for calls are kept for near peers this long: two ticks, in which the first peers tell of others. */
export const NEAR_FIRST_MS = 500;
/** First wait before an address is dialled again; doubles with each failure. */
export const REDIAL_MIN_MS = 1_000;
/** Longest wait: a node that was rebooted is back within half a minute of answering. */
export const REDIAL_MAX_MS = 30_000;
/** Addresses remembered; above it, those that failed most are forgotten. A fleet of a thousand fits. */
export const KNOWN_PEERS_MAX = 2_048;
/** Hosts banned; the oldest is forgiven when full. */
export const BANS_MAX = 4_096;

/** Blocks that nobody asked for are thrown away; after this many the peer is dropped. */
export const UNREQUESTED_BLOCKS_MAX = 32;
/** Pieces suggested by a seeder (BEP 6) that a session remembers: more than one keeps ahead, so that none is lost. */
export const SUGGESTIONS_KEPT = 32;
/** Suggestions that a seeder keeps ahead of another client it serves: one is being fetched while the next is there. */
export const SUGGESTIONS_AHEAD = 2;
/** Sources that may fetch the same unit at once in the endgame. */
export const ENDGAME_COPIES_MAX = 2;
/** Units are fetched twice only when so few pieces are in flight: with more, the copies cost a node 1 % of its time. */
export const ENDGAME_PIECES_MAX = 2;
/** At the end a source that falls silent inside a block is left after this time, TCP's first repetition ... */
export const ENDGAME_SILENCE_MS_MIN = 250;
/** ... and this many times what a piece takes: it died, or everybody waits for it. */
export const ENDGAME_SILENCE_FACTOR = 4;
/** With more, only of pieces that take this many times as long as others: their source is slow. */
export const ENDGAME_SLOW_FACTOR = 3;

/**
 * Pieces granted to our own kind and not yet sent, in pieces of any size: as many as are being sent (TURNS), one that is
 * being asked for behind a block that is on its way to us, one that waits. With fewer a line idles, with more new pieces
 * spread so slowly that it costs as much (decisions 0005 and 0014).
 */
export const GRANT_PIECES = 6;
/** A grant that is not used or given back for this long is not counted: the peer is gone or hears us late. */
export const GRANT_UNUSED_MS = 500;
/** Peers of other networks served at a time by who has enough in its own: with two, uplinks at a quarter of a rack's sum are clogged. */
export const GRANTS_FAR = 1;
/** With fewer peers in its own network than this a node serves all alike: two of twenty cannot keep its line busy. */
export const NEAR_PEERS_MIN = 5;
/** The same where pieces are small: requests travel behind blocks, and these must not be the last that are due. */
export const GRANT_BYTES_MIN = 2 * MiB;
/** The same where the line is fast: 4 ms cover the two ends' scheduling at 10 Gbit/s. */
export const GRANT_AHEAD_MS = 4;
/**
 * Sessions served at the same time, each for one piece. Where the other end's line is shared with other senders, a
 * connection takes only a part of ours: lines idle a quarter of the time of a large fleet with two, a tenth with three, 4 %
 * with four; with more pieces are whole later, which costs as much (decisions 0014, 0026).
 */
export const TURNS = 4;
/** A turn is not counted when its block takes this many times what our line needs for all that is being sent ... */
export const STALL_FACTOR = 2;
/** ... and this long: less is the scheduling of a busy machine. */
export const STALL_MS_MIN = 5;
/** The line's rate is measured over at least this much time and payload: a few blocks, so that their ends do not count. */
export const LINE_MEASURED_MS = 20;
export const LINE_MEASURED_BYTES = 1 * MiB;
/** How slowly a faster time is forgotten: a fiftieth with each measurement. */
export const LINE_FORGOTTEN = 1 / 50;
/** Payload is asked for, handed over and left unsent in slices of so much time of the line (decision 0026). */
export const SLICE_MS = 3;
/** Blocks are this long where they come packed, whatever the slice: 32 KiB of an operating system pack to 0.66, 256 KiB to 0.50. */
export const PACKED_BLOCK_BYTES = 256 * KiB;
/** They come packed when at least this share of the last payload did ... */
export const PACKED_SHARE_MIN = 1 / 4;
/** ... of about so many bytes: archives lie between other files. */
export const PACKED_SHARE_BYTES = 4 * MiB;
/** A peer this many pieces behind another is served before it; nearer ones in turn, which keeps pieces moving evenly. */
export const NEED_MARGIN_PIECES = 2;
/** Other clients unchoked that ask for nothing, beside the slots: they begin without a round trip when they want something. */
export const OFFERS = 8;
/** A slot lasts for a piece and at least this: passing on more often breaks off pieces and asks for them twice. */
export const SLOT_BYTES_MIN = 4 * MiB;
/** A slot goes to the next in line after this long in any case: a slow peer must not hold it. */
export const SLOT_MS_MAX = 5_000;
/** A slot whose peer asks for nothing this long goes to the next in line. */
export const SLOT_IDLE_MS = 500;
/** Other clients keep a slot at least this long: aria2 drops a peer after two choke flips in 5 s. */
export const SLOT_MS_MIN_FOREIGN = 10_000;
/** A connection in which neither side wants anything may give its place to a newcomer after this long. */
export const USELESS_MS = 5_000;
/** One that has not even said what it wants may do so after this long: a handshake takes one round trip. */
export const SILENT_GRACE_MS = 1_000;

/** BEP 11: one message a minute, and at most 50 addresses in it. */
export const PEX_INTERVAL_MS = 60_000;
export const PEX_ADDRESSES_MAX = 50;
/** Metadata requests of one peer waiting for room in its outbox (BEP 9). */
export const METADATA_REQUESTS_MAX = 64;
