/**
 * QEMU's own control socket (QMP): commands by name, answers in order, events as they come. It is how a test pulls
 * a cable, presses reset or asks whether a machine has powered itself off.
 */
import { connect, type Socket } from "node:net";
import { until } from "./process.ts";

export interface QmpEvent {
  readonly event: string;
  readonly data?: Record<string, unknown>;
}

interface Reply extends Partial<QmpEvent> {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** Connects to a Unix socket that another process is about to open. */
export async function connectWhenThere(path: string): Promise<Socket> {
  let socket: Socket | null = null;
  await until(`${path} takes a connection`, async () => {
    socket = await tryToConnect(path);
    return socket !== null;
  });
  return socket!;
}

function tryToConnect(path: string): Promise<Socket | null> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => resolve(socket));
    socket.once("error", () => resolve(null));
  });
}

export class Qmp {
  readonly events: QmpEvent[] = [];
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #rest = "";

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (bytes) => this.#receive(bytes.toString()));
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Error("QEMU has ended")));
  }

  /** Connects and takes the greeting; commands may follow. */
  static async open(path: string): Promise<Qmp> {
    const qmp = new Qmp(await connectWhenThere(path));
    await qmp.execute("qmp_capabilities");
    return qmp;
  }

  execute(command: string, args?: Record<string, unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  /** Called with each event to come; returns what ends that. */
  listen(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines.filter((each) => each.trim() !== "")) this.#take(JSON.parse(line) as Reply);
  }

  #take(reply: Reply): void {
    if (reply.event !== undefined) {
      const event = reply as QmpEvent;
      this.events.push(event);
      for (const listener of this.#listeners) listener(event);
    } else if (reply.error) {
      this.#waiting.shift()?.reject(new Error(`QMP: ${reply.error.desc}`));
    } else if ("return" in reply) {
      this.#waiting.shift()?.resolve(reply.return);
    }
  }

  #fail(error: Error): void {
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
  }
}
