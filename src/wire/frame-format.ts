/** Ids and sizes of the messages of a connection: what writers and reader of frames agree on. */

export const MessageId = {
  choke: 0,
  unchoke: 1,
  interested: 2,
  notInterested: 3,
  have: 4,
  bitfield: 5,
  request: 6,
  piece: 7,
  cancel: 8,
  /** BEP 5: the DHT's port; not used here. */
  port: 9,
  /** BEP 6 from here to allowedFast. */
  suggest: 13,
  haveAll: 14,
  haveNone: 15,
  reject: 16,
  allowedFast: 17,
  /** BEP 10. */
  extended: 20,
} as const;

/** Bytes of whole frames, length prefix included. */
export const KEEP_ALIVE_BYTES = 4;
/** choke, unchoke, interested, notInterested, haveAll, haveNone. */
export const STATE_FRAME_BYTES = 5;
/** have, suggest, allowedFast. */
export const HAVE_FRAME_BYTES = 9;
/** request, cancel, reject. */
export const REQUEST_FRAME_BYTES = 17;
/** Length prefix, id, piece, begin: what stands before a block's payload. */
export const PIECE_HEADER_BYTES = 13;
/** What an extended message needs beside its payload: length prefix, id, extended id. */
export const EXTENDED_OVERHEAD_BYTES = 6;
/** An extended message up to its payload, then piece, begin, plain length: what stands before a packed block's payload. */
export const PACKED_HEADER_BYTES = EXTENDED_OVERHEAD_BYTES + 12;
/** The extended id under which others send us packed blocks (`ds_zstd`); ids of other extensions: `extensions.ts`. */
export const OUR_PACKED_ID = 3;
