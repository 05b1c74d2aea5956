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
/** Largest extended message (BEP 10) accepted: a 16 KiB piece of metadata, a handshake or a peer list stay far below. */
export const EXTENDED_BYTES_MAX = 64 * KiB;
/** Peers of one peer exchange (BEP 11 names 50 as the limit of each list; some clients send more in the first). */
export const PEX_PEERS_MAX = 100;
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
/** Trackers named by one torrent or magnet link: real ones name a few dozen at most. */
export const TRACKERS_MAX = 256;
/** Partitions of one disk whose filesystem type a torrent names: GPT has 128 entries. */
export const PARTITIONS_MAX = 256;
/** Data of an image beyond the end of a smaller disk, kept in memory and then dropped: the backup GPT, rounded and merged with what is near it. */
export const DROPPED_BYTES_MAX = 1 * MiB;
/** Largest table of `--personalize`: 10,000 machines in lines of 100 bytes are 1 MiB. */
export const PERSONALITY_TABLE_BYTES_MAX = 4 * MiB;
/** Nesting of bencode accepted anywhere: a torrent needs 5. */
export const BENCODE_DEPTH_MAX = 32;
/** Requests of one remote peer that wait here; announced to it as `reqq` (BEP 10). */
export const REQUESTS_QUEUED_MAX = 512;
/** Without a `reqq` of the remote peer, this many requests are outstanding at most (libtorrent's default). */
export const REQUESTS_OUTSTANDING_DEFAULT = 250;
/** The disk's first bytes, written last so that a half-written disk never boots: boot sector, primary GPT, superblocks. */
export const HEAD_BYTES = 128 * KiB;
/** Smallest slab pool: connections and packed blocks leave 12 slabs of it. A machine of 160 MB has a quarter of its free memory for it: 10 MiB. */
export const POOL_BYTES_MIN = 8 * MiB;

/** Seconds between two announces of one peer (BEP 3 `interval`): a fleet meshes within one of them, 10,000 nodes cost 333 announces/s. */
export const ANNOUNCE_INTERVAL_S = 30;
/** Least seconds between two announces (`min interval`): a node that knows nobody asks this often. */
export const ANNOUNCE_INTERVAL_MIN_S = 5;
/** A peer is forgotten after this many intervals of silence: one lost announce is no reason, a dead node is gone in 90 s. */
export const ANNOUNCE_INTERVALS_KEPT = 3;
/** Peers returned when the client does not say: more than it dials, few enough that 10,000 nodes do not dial the same one. */
export const TRACKER_PEERS_RETURNED = 30;
/** Peers returned at most, whatever `numwant` asks: BEP 3's old default, and one UDP reply stays below an Ethernet frame. */
export const TRACKER_PEERS_RETURNED_MAX = 50;
/** Peers kept per swarm: twice the largest fleet simulated. Beyond, callers are answered but not remembered. */
export const TRACKER_PEERS_PER_SWARM_MAX = 20_000;
/** Peers kept in all swarms together, about 100 bytes each: an open tracker stays below 10 MB whatever is sent to it. */
export const TRACKER_PEERS_MAX = 100_000;
/** Swarms an open tracker creates for whoever asks; allowed torrents are not counted. */
export const TRACKER_SWARMS_OPEN_MAX = 1000;
/** Info-hashes answered in one scrape: what fits a UDP packet (BEP 15). */
export const TRACKER_SCRAPE_MAX = 74;
/** Longest URL of an announce or scrape: a scrape of 74 percent-encoded hashes needs 5.5 KiB. */
export const TRACKER_URL_BYTES_MAX = 8 * KiB;
/** Longest head of an HTTP request to the tracker's port: the longest URL and as much of headers. */
export const HTTP_HEAD_BYTES_MAX = 16 * KiB;
/** HTTP connections at once: a fleet that does not wait for each other; the one that idles longest makes room. 32 MiB of heads at worst. */
export const HTTP_CONNECTIONS_MAX = 2048;
/** Of these, handed over to the server of all other pages (torrents): two buffers of 16 KiB each. */
export const HTTP_HANDOVERS_MAX = 512;
/** Largest tracker reply read by a client: 1,000 peers in the dictionary form. */
export const TRACKER_REPLY_BYTES_MAX = 128 * KiB;
/** Largest local discovery message (BEP 14) looked at, and info-hashes in one: what fits an Ethernet frame. */
export const DISCOVERY_MESSAGE_BYTES_MAX = 1400;
export const DISCOVERY_HASHES_MAX = 20;
/** Local discovery messages looked at per second: a fleet of 10,000 sends 33, a flood must not cost a core. */
export const DISCOVERY_MESSAGES_PER_SECOND_MAX = 200;

/** Largest plan that a node reads: a URL, a rule and a few options stay far below. */
export const PLAN_BYTES_MAX = 64 * KiB;
/** Largest report of a node: its texts are cut to 1,100 characters together, of three bytes each at worst. */
export const NODE_REPORT_BYTES_MAX = 8 * KiB;
/** Nodes that a server remembers: as many as its tracker keeps peers of one swarm, about 1 KiB each. */
export const FLEET_NODES_MAX = 20_000;
/** Who may watch events at once: a few admins and a dashboard; each holds one of the handovers. */
export const EVENT_WATCHERS_MAX = 32;
/** Events that wait for one watcher who does not read, about 300 bytes each. */
export const EVENTS_WAITING_MAX = 1000;

/** Connections of nodes that read their image from `serve`, two each: 512 machines with little memory. 128 MiB of answers at worst. */
export const NODE_IMAGE_CONNECTIONS_MAX = 1024;
/** What such a connection may have said that is not answered: the commands of its queue are 9 KiB. */
export const NODE_IMAGE_INPUT_BYTES_MAX = 16 * KiB;
/** It says what it wants, and takes what it asked for, within this. */
export const NODE_IMAGE_PATIENCE_MS = 60_000;
/** A node says every few seconds that it is there, a busy one later; after this it is gone. If it is not, its kernel comes back by itself. */
export const NODE_IMAGE_SILENCE_MS_MAX = 120_000;
/** Images of a boot folder that was built anew meanwhile: nodes run on those that they began with, and on older ones than these they end. */
export const NODE_IMAGES_OPEN_MAX = 4;
