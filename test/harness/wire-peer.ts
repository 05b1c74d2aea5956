/**
 * The peer protocol spoken by the test's own hand (BEP 3), well or badly on purpose: a seeder that can lie,
 * and a client that can misbehave. It shares no code with the program.
 */
import { createConnection, createServer, type AddressInfo, type Socket } from "node:net";
import { closeSync, openSync, readSync } from "node:fs";
import { encode } from "./bencode.ts";
import type { Extent } from "./image.ts";
import type { Scope } from "./scope.ts";

export const Message = {
  choke: 0,
  unchoke: 1,
  interested: 2,
  have: 4,
  bitfield: 5,
  request: 6,
  piece: 7,
  extended: 20,
} as const;
const PROTOCOL = Buffer.concat([Buffer.from([19]), Buffer.from("BitTorrent protocol")]);
const HANDSHAKE_BYTES = 68;

let handshakesMade = 0;

function newPeerId(): Buffer {
  return Buffer.from(`-XX0001-${String(handshakesMade++).padStart(12, "0")}`);
}

/** A handshake without extensions, with a peer id that was not used before. */
export function handshake(infoHash: Uint8Array, peerId = newPeerId()): Buffer {
  return Buffer.concat([PROTOCOL, Buffer.alloc(8), infoHash, peerId]);
}

/** Likewise with BEP 10 and an extension handshake that offers packed blocks. */
function extendedHandshake(infoHash: Uint8Array): Buffer {
  const greeting = handshake(infoHash);
  greeting[PROTOCOL.length + 5]! |= 0x10;
  const offer = encode({ m: { ds_zstd: 9 }, reqq: 64 });
  return Buffer.concat([greeting, frame(Message.extended, Buffer.from([0]), offer)]);
}

/** The id that an extension handshake gives to packed blocks; 0: none. */
function packedIdOf(payload: Buffer): number {
  const found = /7:ds_zstdi(\d+)e/.exec(payload.toString("latin1"));
  return found ? Number(found[1]) : 0;
}

/** A frame: four bytes of length, the message's number, its body. */
export function frame(message: number, ...parts: (number | Uint8Array)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => (typeof part === "number" ? uint32(part) : part)));
  return Buffer.concat([uint32(body.length + 1), Buffer.from([message]), body]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** Cuts a stream into its handshake and frames. */
export class FrameReader {
  #pending: Buffer = Buffer.alloc(0);
  #greeted = false;

  constructor(
    private readonly onHandshake: () => void,
    private readonly onFrame: (message: number, body: Buffer) => void,
  ) {}

  feed(bytes: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, bytes]);
    if (!this.#greeted && this.#pending.length >= HANDSHAKE_BYTES) {
      this.#greeted = true;
      this.#pending = this.#pending.subarray(HANDSHAKE_BYTES);
      this.onHandshake();
    }
    while (this.#greeted && this.#pending.length >= 4) {
      const length = this.#pending.readUInt32BE(0);
      if (this.#pending.length < 4 + length) return;
      const body = this.#pending.subarray(4, 4 + length);
      this.#pending = this.#pending.subarray(4 + length);
      if (length > 0) this.onFrame(body[0]!, body.subarray(1));
    }
  }
}

export interface SeederOptions {
  readonly host: string;
  readonly infoHash: Uint8Array;
  readonly source: string;
  readonly extents: readonly Extent[];
  readonly pieceBytes: number;
  /** May change the bytes of a block before they are sent. */
  readonly corrupt?: (piece: number, beginBytes: number, block: Buffer) => void;
  /** Offers and sends packed blocks (PROTOCOL.md): what follows the header for each block, and the length that the header names. */
  readonly pack?: (piece: number, beginBytes: number, block: Buffer) => { length: number; payload: Uint8Array };
  /** Says that it has everything, and leaves every request unanswered. */
  readonly mute?: boolean;
}

export interface TestSeeder {
  readonly peer: string;
  /** Blocks asked of it so far. */
  requests(): number;
  /** Connections accepted so far. */
  connections(): number;
}

/** A seeder of the test's own. Resolves when it listens. */
export function testSeeder(scope: Scope, options: SeederOptions): Promise<TestSeeder> {
  const payload = new Payload(options.source, options.extents);
  const pieceCount = Math.ceil(payload.totalBytes / options.pieceBytes);
  const sockets = new Set<Socket>();
  let requests = 0;
  let connections = 0;
  const { pack } = options;
  const greeting = Buffer.concat([
    (pack ? extendedHandshake : handshake)(options.infoHash),
    frame(Message.bitfield, fullBitfield(pieceCount)),
  ]);
  const serve = (socket: Socket) => {
    connections++;
    sockets.add(socket);
    // A peer that bans us resets the connection: that is what the test wants to see.
    socket.on("error", () => socket.destroy());
    socket.on("close", () => sockets.delete(socket));
    let packedId = 0;
    const reader = new FrameReader(
      () => socket.write(greeting),
      (message, body) => {
        if (message === Message.extended && body[0] === 0) packedId = packedIdOf(body);
        if (message === Message.interested) socket.write(frame(Message.unchoke));
        if (message !== Message.request) return;
        requests++;
        if (!options.mute) socket.write(answer(body, packedId));
      },
    );
    socket.on("data", (bytes) => reader.feed(bytes as Buffer));
  };
  const answer = (request: Buffer, packedId: number): Buffer => {
    const [piece, begin, length] = [request.readUInt32BE(0), request.readUInt32BE(4), request.readUInt32BE(8)];
    const block = payload.read(piece * options.pieceBytes + begin, length);
    options.corrupt?.(piece, begin, block);
    if (pack && packedId > 0) {
      const { length, payload } = pack(piece, begin, block);
      return frame(Message.extended, Buffer.from([packedId]), piece, begin, length, payload);
    }
    return frame(Message.piece, piece, begin, block);
  };
  const server = createServer(serve);
  scope.defer(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
    payload.close();
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, options.host, () => {
      const { port } = server.address() as AddressInfo;
      resolve({ peer: `${options.host}:${port}`, requests: () => requests, connections: () => connections });
    });
  });
}

function fullBitfield(pieceCount: number): Buffer {
  const bits = Buffer.alloc(Math.ceil(pieceCount / 8), 0xff);
  if (pieceCount % 8 !== 0) bits[bits.length - 1] = (0xff << (8 - (pieceCount % 8))) & 0xff;
  return bits;
}

/** The extents of a source, joined. */
class Payload {
  readonly #fd: number;
  readonly totalBytes: number;

  constructor(
    source: string,
    private readonly extents: readonly Extent[],
  ) {
    this.#fd = openSync(source, "r");
    this.totalBytes = extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  }

  read(torrentOffsetBytes: number, lengthBytes: number): Buffer {
    const block = Buffer.alloc(lengthBytes);
    let extentStart = 0;
    for (const extent of this.extents) {
      const from = Math.max(torrentOffsetBytes, extentStart);
      const to = Math.min(torrentOffsetBytes + lengthBytes, extentStart + extent.lengthBytes);
      if (from < to)
        readSync(this.#fd, block, from - torrentOffsetBytes, to - from, extent.offsetBytes + from - extentStart);
      extentStart += extent.lengthBytes;
    }
    return block;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** A client of the test's own: connects, says what it is told, and sees what comes back. */
export class TestClient {
  readonly #socket: Socket;
  readonly frames: { message: number; body: Buffer }[] = [];
  /** Settles when the other side closed or reset the connection. */
  readonly dropped: Promise<void>;
  #greeted = false;
  #onChange: () => void = () => {};

  private constructor(scope: Scope, socket: Socket) {
    this.#socket = socket;
    const reader = new FrameReader(
      () => {
        this.#greeted = true;
        this.#onChange();
      },
      (message, body) => {
        this.frames.push({ message, body: Buffer.from(body) });
        this.#onChange();
      },
    );
    socket.on("data", (bytes) => reader.feed(bytes as Buffer));
    this.dropped = new Promise((resolve) => {
      socket.on("close", () => resolve());
      // A reset is followed by "close".
      socket.on("error", () => socket.destroy());
    });
    scope.defer(() => void socket.destroy());
  }

  static connect(scope: Scope, at: { host: string; port: number }): Promise<TestClient> {
    return new Promise((resolve, reject) => {
      const socket = createConnection(at);
      socket.once("error", reject);
      socket.once("connect", () => {
        socket.off("error", reject);
        resolve(new TestClient(scope, socket));
      });
    });
  }

  send(...parts: Uint8Array[]): void {
    this.#socket.write(Buffer.concat(parts));
  }

  async greeted(): Promise<void> {
    await this.#until(() => this.#greeted);
  }

  /** The first frame of that message, past or to come. */
  async received(message: number): Promise<Buffer> {
    await this.#until(() => this.frames.some((found) => found.message === message));
    return this.frames.find((found) => found.message === message)!.body;
  }

  #until(check: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#onChange = () => {
        if (check()) resolve();
      };
      void this.dropped.then(() => reject(new Error("the other side closed the connection")));
      this.#onChange();
    });
  }
}
