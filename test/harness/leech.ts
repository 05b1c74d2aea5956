/** A client of the test's own that fetches without end: asks for blocks of pieces that the other side has, and throws them away. */
import { createConnection, type Socket } from "node:net";
import type { Scope } from "./scope.ts";
import { FrameReader, Message, frame, handshake } from "./wire-peer.ts";

const BLOCK_BYTES = 16_384;
/** Blocks asked for and not yet there. */
const OUTSTANDING_MAX = 16;
const BLOCK_HEAD_BYTES = 8;

export class Leech {
  /** Payload that arrived. */
  receivedBytes = 0;
  /** Settles when the other side ended the connection. */
  readonly dropped: Promise<void>;
  readonly #socket: Socket;
  readonly #has: number[] = [];
  #choked = true;
  #outstanding = 0;
  #next = 0;

  constructor(
    scope: Scope,
    at: { host: string; port: number },
    infoHash: Uint8Array,
    private readonly pieceBytes: number,
  ) {
    this.#socket = createConnection(at, () => this.#socket.write(handshake(infoHash)));
    const reader = new FrameReader(
      () => this.#socket.write(frame(Message.interested)),
      (message, body) => this.#hear(message, body),
    );
    this.#socket.on("data", (bytes) => reader.feed(bytes as Buffer));
    this.#socket.on("error", () => this.#socket.destroy());
    this.dropped = new Promise((resolve) => this.#socket.on("close", () => resolve()));
    scope.defer(() => void this.#socket.destroy());
  }

  #hear(message: number, body: Buffer): void {
    if (message === Message.have) this.#has.push(body.readUInt32BE(0));
    else if (message === Message.bitfield) {
      for (let piece = 0; piece < body.length * 8; piece++) {
        if ((body[piece >> 3]! & (0x80 >> (piece & 7))) !== 0) this.#has.push(piece);
      }
    } else if (message === Message.choke || message === Message.unchoke) {
      // Without BEP 6 a choke takes every request back.
      this.#choked = message === Message.choke;
      this.#outstanding = 0;
    } else if (message === Message.piece) {
      this.receivedBytes += body.length - BLOCK_HEAD_BYTES;
      this.#outstanding--;
    }
    this.#ask();
  }

  /** Walks through what the other side has, from its newest piece to its oldest and around again. */
  #ask(): void {
    while (!this.#choked && this.#has.length > 0 && this.#outstanding < OUTSTANDING_MAX) {
      const blocksPerPiece = this.pieceBytes / BLOCK_BYTES;
      const at = this.#has.length - 1 - (Math.floor(this.#next / blocksPerPiece) % this.#has.length);
      const begin = (this.#next++ % blocksPerPiece) * BLOCK_BYTES;
      this.#socket.write(frame(Message.request, this.#has[at]!, begin, BLOCK_BYTES));
      this.#outstanding++;
    }
  }
}
