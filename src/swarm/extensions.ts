/**
 * Extended messages of a swarm's sessions: the handshake (BEP 10), serving metadata (BEP 9), peer exchange (BEP 11).
 *
 * Nothing is sent under an id that the remote peer did not offer. What does not fit the outbox waits, bounded.
 */
import { PeerFault } from "../errors.ts";
import { BLOCK_BYTES, REQUESTS_OUTSTANDING_DEFAULT, REQUESTS_QUEUED_MAX } from "../limits.ts";
import type { PeerAddress } from "../wire/address.ts";
import {
  decodeExtensionHandshake,
  decodeMetadataMessage,
  decodePex,
  encodeExtensionHandshake,
  encodeMetadataData,
  encodeMetadataReject,
  HANDSHAKE_EXTENDED_ID,
  OUR_METADATA_ID,
  OUR_PEX_ID,
} from "../wire/extensions.ts";
import { EXTENDED_OVERHEAD_BYTES, OUR_PACKED_ID } from "../wire/frames.ts";
import { isSameNetwork } from "./networks.ts";
import { METADATA_REQUESTS_MAX, REQUESTS_OUTSTANDING_MAX } from "./policy.ts";
import type { Pex } from "./pex.ts";
import type { Session } from "./session.ts";

/** As others show it in their lists of peers. */
const CLIENT = "diskswarm 0.1";

export interface ExtensionsOptions {
  readonly metadata: Uint8Array | null;
  /** Metadata is wanted: say that we understand BEP 9 though we have none. */
  readonly wantsMetadata: boolean;
  readonly isPrivate: boolean;
  readonly listenPort: number;
  readonly blockBytesMax: number;
  readonly packedBlocks: boolean;
}

export class Extensions {
  constructor(
    private readonly options: ExtensionsOptions,
    private readonly pex: Pex | null,
  ) {}

  /** Writes our handshake; the outbox is new and has room. */
  opened(session: Session, uploadOnly: boolean): void {
    if (!session.extensions) return;
    const { metadata, wantsMetadata, listenPort, blockBytesMax, packedBlocks } = this.options;
    const payload = encodeExtensionHandshake({
      metadataId: metadata !== null || wantsMetadata ? OUR_METADATA_ID : 0,
      pexId: this.pex !== null ? OUR_PEX_ID : 0,
      packedId: packedBlocks ? OUR_PACKED_ID : 0,
      client: CLIENT,
      port: listenPort > 0 ? listenPort : null,
      requestsMax: REQUESTS_QUEUED_MAX,
      metadataBytes: metadata?.length ?? null,
      yourHost: session.address.host,
      uploadOnly,
      // Even where it is what all clients serve: it also says that we are of our own kind.
      blockBytes: blockBytesMax,
    });
    session.ext.handshakeSent = session.writeExtended(HANDSHAKE_EXTENDED_ID, payload);
  }

  /** A message that is no handshake: served or passed on. Handshakes are read with `readHandshake`. */
  received(
    nowMs: number,
    session: Session,
    extendedId: number,
    payload: Uint8Array,
    learn: (addresses: PeerAddress[]) => void,
  ): void {
    if (extendedId === OUR_PEX_ID && this.pex !== null) {
      if (!this.pex.mayReceive(nowMs, session)) return;
      learn(decodePex(payload).added.map((peer) => peer.address));
    } else if (extendedId === OUR_METADATA_ID && this.options.metadata !== null) {
      const message = decodeMetadataMessage(payload);
      if (message.kind !== "request" || session.ext.metadataId === 0) return;
      if (session.ext.metadataWanted.length >= METADATA_REQUESTS_MAX) throw new PeerFault("too many metadata requests");
      session.ext.metadataWanted.push(message.piece);
    }
    this.flush(nowMs, session);
  }

  /** Writes what waits, as far as there is room. */
  flush(nowMs: number, session: Session): void {
    const wanted = session.ext.metadataWanted;
    while (wanted.length > 0 && this.answer(session, wanted[0])) wanted.shift();
    this.pex?.flush(nowMs, session);
  }

  private answer(session: Session, piece: number): boolean {
    const data = encodeMetadataData(this.options.metadata!, piece);
    const fits = data !== null && session.roomMax >= EXTENDED_OVERHEAD_BYTES + data.length;
    return session.writeExtended(session.ext.metadataId, fits ? data : encodeMetadataReject(piece));
  }
}

/** What of an extension handshake is not for the session alone; null where it was not said. */
export interface Introduction {
  readonly metadataBytes: number | null;
  /** Our address as the remote peer sees it. */
  readonly ourHost: string | null;
}

/** Takes over what the remote peer's extension handshake offers. */
export function readHandshake(session: Session, payload: Uint8Array): Introduction {
  const offer = decodeExtensionHandshake(payload);
  session.ext.metadataId = offer.metadataId;
  session.ext.pexId = offer.pexId;
  session.ext.listenPort = offer.port ?? session.ext.listenPort;
  session.ext.dialKey = null;
  session.ext.client = offer.client ?? "";
  session.requestsMax = Math.min(offer.requestsMax ?? REQUESTS_OUTSTANDING_DEFAULT, REQUESTS_OUTSTANDING_MAX);
  session.isOurs = offer.blockBytes !== null;
  // Both ends of the connection as the remote peer sees them.
  if (offer.yourHost !== null) session.isNear = isSameNetwork(offer.yourHost, session.address.host);
  session.packedId = offer.packedId;
  if (offer.blockBytes !== null) session.blockBytes = powerOfTwoBelow(offer.blockBytes);
  return { metadataBytes: offer.metadataBytes, ourHost: offer.yourHost };
}

/** Blocks are aligned to their largest size, so that they cross no slab of either side. */
function powerOfTwoBelow(bytes: number): number {
  let power = BLOCK_BYTES;
  while (power * 2 <= bytes) power *= 2;
  return power;
}
