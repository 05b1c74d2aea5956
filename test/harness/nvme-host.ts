/** A host of NVMe over TCP that says exactly what a test wants said, written from the specification beside the one that is tested. */
import { connect, type Socket } from "node:net";

export interface HostCommand {
  readonly opcode: number;
  readonly namespace?: number;
  /** Dwords 10 to 12 and 13. */
  readonly words?: readonly number[];
  /** What the host has room for. */
  readonly dataBytes?: number;
  /** Sent within the capsule. */
  readonly data?: Uint8Array;
}

export interface HostAnswer {
  /** With the bit that says not to try again. */
  readonly status: number;
  readonly result: bigint;
  readonly data: Buffer;
}

export class NvmeHost {
  #received = Buffer.alloc(0);
  #wake: (() => void) | null = null;
  #hasEnded = false;
  #nextId = 1;

  private constructor(
    readonly socket: Socket,
    /** Each byte in a segment of its own. */
    private readonly bytewise: boolean,
  ) {
    const wake = () => {
      this.#wake?.();
    };
    socket.on("data", (bytes: Buffer) => {
      this.#received = Buffer.concat([this.#received, bytes]);
      wake();
    });
    // A connection that is let go may be reset.
    socket.on("error", wake);
    socket.on("close", () => {
      this.#hasEnded = true;
      wake();
    });
  }

  static async open(port: number, bytewise = false): Promise<NvmeHost> {
    const socket = connect(port, "127.0.0.1");
    socket.setNoDelay(true);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return new NvmeHost(socket, bytewise);
  }

  async send(bytes: Uint8Array): Promise<void> {
    if (!this.bytewise) return void this.socket.write(bytes);
    for (const byte of bytes) await new Promise((resolve) => this.socket.write(Uint8Array.of(byte), resolve));
  }

  /** Resolves when the server has closed. */
  async closed(): Promise<void> {
    while (!this.#hasEnded) await this.#more();
  }

  /** The next PDU; throws where the server closes instead. */
  async pdu(): Promise<Buffer> {
    for (;;) {
      const length = this.#received.length >= 8 ? this.#received.readUInt32LE(4) : Infinity;
      if (this.#received.length >= length) {
        const pdu = this.#received.subarray(0, length);
        this.#received = this.#received.subarray(length);
        return pdu;
      }
      if (this.#hasEnded) throw new Error("the server closed the connection");
      await this.#more();
    }
  }

  async greet(): Promise<Buffer> {
    await this.send(greeting());
    return this.pdu();
  }

  async command(command: HostCommand): Promise<HostAnswer> {
    const id = this.#nextId++;
    await this.send(capsule(id, command));
    return this.answer(id);
  }

  /** What is answered to the command of that number: its data, and how it ended. */
  async answer(id: number): Promise<HostAnswer> {
    const parts: Buffer[] = [];
    for (;;) {
      const pdu = await this.pdu();
      if (pdu[0] === 0x07) {
        if (pdu.readUInt16LE(8) !== id || pdu.readUInt32LE(16) !== pdu.length - 24) throw new Error("data of another");
        parts.push(pdu.subarray(24));
        continue;
      }
      if (pdu[0] !== 0x05 || pdu.length !== 24 || pdu.readUInt16LE(20) !== id) throw new Error(`PDU ${pdu.toHex()}`);
      return { status: pdu.readUInt16LE(22) >> 1, result: pdu.readBigUInt64LE(8), data: Buffer.concat(parts) };
    }
  }

  connectQueue(queue: number, subsystem: string, controller = 0xffff, host = "nqn.test:host"): Promise<HostAnswer> {
    return this.command(connectCommand(queue, subsystem, controller, host));
  }

  /** Greeting, Connect and the register that enables it, as an admin queue. Returns the controller's number. */
  async administer(subsystem: string): Promise<number> {
    await this.greet();
    const { status, result } = await this.connectQueue(0, subsystem);
    if (status !== 0) throw new Error(`Connect ended with 0x${status.toString(16)}`);
    await this.command({ opcode: 0x7f, namespace: 0, words: [0, 0x14, 0x0046_0001, 0] });
    return Number(result);
  }

  /** As a queue for reading. */
  async join(subsystem: string, controller: number): Promise<void> {
    await this.greet();
    const { status } = await this.connectQueue(1, subsystem, controller);
    if (status !== 0) throw new Error(`Connect ended with 0x${status.toString(16)}`);
  }

  read(sector: number, count: number, dataBytes = count * 512): Promise<HostAnswer> {
    return this.command(readCommand(sector, count, dataBytes));
  }

  end(): void {
    this.socket.destroy();
  }

  #more(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

export function readCommand(sector: number, count: number, dataBytes = count * 512): HostCommand {
  return { opcode: 0x02, namespace: 1, words: [sector, 0, count - 1], dataBytes };
}

export function connectCommand(queue: number, subsystem: string, controller: number, host: string): HostCommand {
  const data = Buffer.alloc(1024);
  data.writeUInt16LE(controller, 16);
  data.write(subsystem, 256, "latin1");
  data.write(host, 512, "latin1");
  return { opcode: 0x7f, namespace: 1, words: [queue << 16, 31, 15_000], data, dataBytes: 1024 };
}

export function greeting(version = 0): Buffer {
  const bytes = pdu(0x00, 128, 128);
  bytes.writeUInt16LE(version, 8);
  return bytes;
}

export function capsule(id: number, { opcode, namespace = 0, words = [], dataBytes = 0, data }: HostCommand): Buffer {
  const bytes = pdu(0x04, 72, 72 + (data?.length ?? 0), data ? 72 : 0);
  bytes[8] = opcode;
  bytes[9] = 0x40;
  bytes.writeUInt16LE(id, 10);
  bytes.writeUInt32LE(namespace, 12);
  bytes.writeUInt32LE(dataBytes, 40);
  bytes[47] = data ? 0x01 : 0x5a;
  for (const [index, word] of words.entries()) bytes.writeUInt32LE(word >>> 0, 48 + 4 * index);
  if (data) bytes.set(data, 72);
  return bytes;
}

/** A PDU's header, and room for the rest of it. */
export function pdu(type: number, headerBytes: number, lengthBytes: number, dataAt = 0): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  bytes.set([type, 0, headerBytes, dataAt]);
  bytes.writeUInt32LE(lengthBytes, 4);
  return bytes;
}
