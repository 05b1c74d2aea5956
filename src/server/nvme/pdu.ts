/**
 * NVMe over TCP as bytes: the PDUs that a host sends and those that are answered (NVM Express TCP Transport
 * Specification 1.0, section 3). Pure, and only what a read-only target needs: no digests, no data from the host but
 * what comes within a command's capsule.
 */

/** What the host sends. */
export const HostPdu = { icReq: 0x00, termReq: 0x02, command: 0x04 } as const;
/** What the target sends. */
const TargetPdu = { icResp: 0x01, response: 0x05, data: 0x07 } as const;

export const IC_BYTES = 128;
const HEADER_BYTES = 8;
const COMMAND_BYTES = 64;
const CAPSULE_HEADER_BYTES = HEADER_BYTES + COMMAND_BYTES;
const RESPONSE_BYTES = 24;
export const DATA_HEADER_BYTES = 24;
/** Data in a capsule: a Connect has 1,024 bytes of it, nothing else has any. */
export const CAPSULE_DATA_BYTES_MAX = 4096;
/** Header, data and the gap that a host may leave between them (at most 128 bytes, where we ask for none). */
const PDU_BYTES_MAX = CAPSULE_HEADER_BYTES + 128 + CAPSULE_DATA_BYTES_MAX;
const DATA_LAST = 0x04;
const FIRST_VERSION = 0;
/** Least that a host may be told it can send at once. None of ours ever does. */
const HOST_DATA_BYTES = 4096;

export type Pdu =
  | { readonly type: "connect"; readonly version: number; readonly alignmentBytes: number }
  | { readonly type: "command"; readonly command: Uint8Array; readonly data: Uint8Array }
  | { readonly type: "end" };

/** Takes a stream apart. */
export class PduReader {
  #held = new Uint8Array(0);

  /** Bytes that wait for their PDU's end, or for whoever takes the next one. */
  get heldBytes(): number {
    return this.#held.length;
  }

  feed(bytes: Uint8Array): void {
    const all = new Uint8Array(this.#held.length + bytes.length);
    all.set(this.#held);
    all.set(bytes, this.#held.length);
    this.#held = all;
  }

  /** The next PDU; null where it is not all there; a string says what is wrong with it, and nothing can follow. */
  next(): Pdu | null | string {
    const held = this.#held;
    if (held.length < HEADER_BYTES) return null;
    const view = viewOf(held);
    const [type, flags, headerBytes, dataAt, lengthBytes] = [
      held[0]!,
      held[1]!,
      held[2]!,
      held[3]!,
      view.getUint32(4, true),
    ];
    const problem = headerProblem(type, headerBytes, lengthBytes);
    if (problem !== null) return problem;
    if (flags !== 0 && type !== HostPdu.termReq)
      return `a PDU has the flags ${flags}, which promise digests that were not agreed on`;
    if (held.length < lengthBytes) return null;
    this.#held = held.slice(lengthBytes);
    if (type === HostPdu.termReq) return { type: "end" };
    if (type === HostPdu.icReq)
      return { type: "connect", version: view.getUint16(8, true), alignmentBytes: 4 * (held[10]! + 1) };
    const from = lengthBytes === headerBytes ? lengthBytes : dataAt;
    if (from < headerBytes || from > lengthBytes) return `a command's data begins at ${from} of ${lengthBytes} bytes`;
    return {
      type: "command",
      command: held.slice(HEADER_BYTES, CAPSULE_HEADER_BYTES),
      data: held.slice(from, lengthBytes),
    };
  }
}

function headerProblem(type: number, headerBytes: number, lengthBytes: number): string | null {
  const wanted = { [HostPdu.icReq]: IC_BYTES, [HostPdu.command]: CAPSULE_HEADER_BYTES, [HostPdu.termReq]: 24 }[type];
  if (wanted === undefined) return `a PDU has the type ${type}, which no host sends to a disk that is only read`;
  if (headerBytes !== wanted) return `a PDU of type ${type} has a header of ${headerBytes} bytes instead of ${wanted}`;
  if (lengthBytes < wanted || lengthBytes > PDU_BYTES_MAX || (type === HostPdu.icReq && lengthBytes !== wanted))
    return `a PDU of type ${type} has ${lengthBytes} bytes`;
  return null;
}

export function encodeIcResp(): Uint8Array {
  const bytes = header(TargetPdu.icResp, 0, IC_BYTES, 0, IC_BYTES);
  const view = viewOf(bytes);
  view.setUint16(8, FIRST_VERSION, true);
  view.setUint32(12, HOST_DATA_BYTES, true);
  return bytes;
}

export interface Completion {
  readonly id: number;
  /** Its queue's head, as the host counts it. */
  readonly queueHead: number;
  readonly queueId: number;
  /** Status code and its type as the base specification has them, without the phase. 0: success. */
  readonly status: number;
  readonly result?: bigint;
}

export function encodeResponse({ id, queueHead, queueId, status, result = 0n }: Completion): Uint8Array {
  const bytes = header(TargetPdu.response, 0, RESPONSE_BYTES, 0, RESPONSE_BYTES);
  const view = viewOf(bytes);
  view.setBigUint64(8, result, true);
  view.setUint16(16, queueHead, true);
  view.setUint16(18, queueId, true);
  view.setUint16(20, id, true);
  view.setUint16(22, status << 1, true);
  return bytes;
}

/** All of a command's data. What follows is room for it, to be filled by whoever reads it. */
export function encodeData(id: number, lengthBytes: number): Uint8Array {
  const bytes = header(
    TargetPdu.data,
    DATA_LAST,
    DATA_HEADER_BYTES,
    DATA_HEADER_BYTES,
    DATA_HEADER_BYTES + lengthBytes,
  );
  const view = viewOf(bytes);
  view.setUint16(8, id, true);
  view.setUint32(16, lengthBytes, true);
  return bytes;
}

/** A PDU of `lengthBytes`, zero behind its first 8. */
function header(type: number, flags: number, headerBytes: number, dataAt: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  bytes.set([type, flags, headerBytes, dataAt]);
  viewOf(bytes).setUint32(4, lengthBytes, true);
  return bytes;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
