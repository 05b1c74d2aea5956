/**
 * The port at which nodes with little memory read their image as they need it: their kernels' own NVMe over TCP, so
 * that nothing of ours has to run there for it. They come back by themselves after a server or a cable was gone.
 *
 * It is on the main thread, beside pages: a read is a look into the page cache. Each connection holds one answer.
 */
import { ExitCode, Failure } from "../../errors.ts";
import {
  NODE_IMAGE_CONNECTIONS_MAX,
  NODE_IMAGE_INPUT_BYTES_MAX,
  NODE_IMAGE_PATIENCE_MS,
  NODE_IMAGE_SILENCE_MS_MAX,
} from "../../limits.ts";
import type { ImageFiles } from "./image-files.ts";
import { PduReader } from "./pdu.ts";
import { Controllers, NvmeSession } from "./session.ts";

export interface ImageListenerOptions {
  /** Address to bind; null: all of IPv6 and IPv4. */
  readonly listen: string | null;
  /** 0: the kernel chooses. */
  readonly port: number;
  /** Where it is taken the kernel chooses another. */
  readonly portMayChange: boolean;
  readonly images: ImageFiles;
  readonly tell: (line: string) => void;
  /** Tests have smaller ones. */
  readonly limits?: Partial<ImageLimits>;
}

interface ImageLimits {
  readonly connectionsMax: number;
  /** From its opening to Connect. */
  readonly connectMsMax: number;
  /** In which nothing of an answer goes out. */
  readonly answerMsMax: number;
  readonly silenceMsMax: number;
  readonly sweepMs: number;
}

const LIMITS: ImageLimits = {
  connectionsMax: NODE_IMAGE_CONNECTIONS_MAX,
  connectMsMax: NODE_IMAGE_PATIENCE_MS,
  answerMsMax: NODE_IMAGE_PATIENCE_MS,
  silenceMsMax: NODE_IMAGE_SILENCE_MS_MAX,
  sweepMs: 2_000,
};

interface Connection {
  readonly session: NvmeSession;
  readonly reader: PduReader;
  readonly peer: string;
  isBusy: boolean;
  hasEnded: boolean;
  /** What of an answer has not gone out. */
  unsent: Uint8Array;
  /** Ends the wait for it. */
  sent: (() => void) | null;
  readonly openedMs: number;
  heardMs: number;
  /** When bytes last went out. */
  movedMs: number;
}

type Socket = Bun.Socket<Connection>;

/** Asked for by initramfs/attach.sh. */
const OFFER_PATH = "/boot/root.nvme";
const TEXT = { "Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store" };
const NOTHING = new Uint8Array(0);

export class ImageListener {
  readonly #sockets = new Set<Socket>();
  readonly #controllers: Controllers;
  readonly #listener: Bun.TCPSocketListener<Connection>;
  readonly #timer: Timer;
  readonly #limits: ImageLimits;

  /** Throws a Failure where the port cannot be had. */
  constructor(private readonly options: ImageListenerOptions) {
    this.#limits = { ...LIMITS, ...options.limits };
    this.#controllers = new Controllers((sha256) => options.images.find(sha256), this.#limits.connectionsMax);
    this.#listener = this.#listen();
    this.#timer = setInterval(() => this.#sweep(performance.now()), this.#limits.sweepMs);
  }

  get port(): number {
    return this.#listener.port;
  }

  /** Answers `/boot/root.nvme`: the port, and how long the image is. Null for any other path. */
  handle(path: string): Promise<Response> | null {
    return path === OFFER_PATH ? this.#offer() : null;
  }

  async #offer(): Promise<Response> {
    const lengthBytes = await this.options.images.lengthBytes();
    return lengthBytes === null
      ? new Response("there is no root.squashfs\n", { status: 404, headers: TEXT })
      : new Response(`${this.port} ${lengthBytes}\n`, { headers: TEXT });
  }

  /** Hosts that read. */
  get hosts(): number {
    return this.#controllers.size;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#listener.stop(true);
    for (const socket of this.#sockets) this.#end(socket, null);
    await this.options.images.close();
  }

  #listen(): Bun.TCPSocketListener<Connection> {
    const { listen, port, portMayChange } = this.options;
    const hosts = listen === null ? ["::", "0.0.0.0"] : [listen];
    const ports = portMayChange && port !== 0 ? [port, 0] : [port];
    let problem: unknown;
    for (const each of ports)
      for (const hostname of hosts)
        try {
          return Bun.listen<Connection>({ hostname, port: each, socket: this.#handlers() });
        } catch (error) {
          problem = error;
        }
    const why = (problem as Error).message;
    const message = `TCP port ${port} of ${listen ?? "all addresses"} cannot be bound (${why}): choose another with --nvme PORT`;
    throw new Failure(ExitCode.failed, "listen", message);
  }

  #handlers(): Bun.SocketHandler<Connection> {
    return {
      open: (socket) => this.#open(socket),
      data: (socket, bytes) => this.#receive(socket, bytes),
      drain: (socket) => this.#write(socket),
      close: (socket) => this.#end(socket, null),
      error: (socket, error) => this.#end(socket, error.message),
    };
  }

  #open(socket: Socket): void {
    const nowMs = performance.now();
    socket.data = {
      session: new NvmeSession(this.#controllers),
      reader: new PduReader(),
      peer: `${socket.remoteAddress}:${socket.remotePort}`,
      isBusy: false,
      hasEnded: false,
      unsent: NOTHING,
      sent: null,
      openedMs: nowMs,
      heardMs: nowMs,
      movedMs: nowMs,
    };
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    if (this.#sockets.size > this.#limits.connectionsMax) this.#end(socket, "there are too many connections");
  }

  #receive(socket: Socket, bytes: Uint8Array): void {
    const { data } = socket;
    if (data.hasEnded) return;
    data.heardMs = performance.now();
    data.reader.feed(bytes);
    if (data.reader.heldBytes > NODE_IMAGE_INPUT_BYTES_MAX) this.#end(socket, "it asks for more than its queue holds");
    else if (!data.isBusy) void this.#work(socket);
  }

  /** Answers what is there, one after the other. */
  async #work(socket: Socket): Promise<void> {
    const { data } = socket;
    data.isBusy = true;
    while (!data.hasEnded) {
      const pdu = data.reader.next();
      if (pdu === null) break;
      const answer = typeof pdu === "string" ? { end: pdu } : await data.session.answer(pdu);
      if (data.hasEnded) {
        // Its controller came into being after the connection was gone.
        data.session.end();
        return;
      }
      if ("end" in answer) return this.#end(socket, answer.end);
      for (const bytes of answer) await this.#send(socket, bytes);
    }
    data.isBusy = false;
  }

  /** Resolves when the kernel has all of it, or the connection has ended. */
  #send(socket: Socket, bytes: Uint8Array): Promise<void> {
    const { data } = socket;
    if (data.hasEnded) return Promise.resolve();
    data.unsent = bytes;
    data.movedMs = performance.now();
    return new Promise((resolve) => {
      data.sent = resolve;
      this.#write(socket);
    });
  }

  #write(socket: Socket): void {
    const { data } = socket;
    if (data.hasEnded || data.sent === null) return;
    const written = socket.write(data.unsent);
    if (written < 0) return this.#end(socket, null);
    if (written > 0) data.movedMs = performance.now();
    data.unsent = data.unsent.subarray(written);
    if (data.unsent.length > 0) return;
    data.sent();
    data.sent = null;
  }

  /** `why`: what the host did; null where it has gone. */
  #end(socket: Socket, why: string | null): void {
    const { data } = socket;
    if (data === undefined || data.hasEnded) return;
    data.hasEnded = true;
    this.#sockets.delete(socket);
    if (why !== null) this.options.tell(`node image: ${data.peer} is let go: ${why}`);
    data.sent?.();
    data.sent = null;
    const { isAdmin, controllerId } = data.session;
    data.session.end();
    socket.terminate();
    // Its other queues are of no use any more; the host makes all of them anew.
    if (isAdmin)
      for (const other of this.#sockets) if (other.data.session.controllerId === controllerId) this.#end(other, null);
  }

  #sweep(nowMs: number): void {
    const { connectMsMax, answerMsMax, silenceMsMax } = this.#limits;
    for (const socket of this.#sockets) {
      const { session, sent, openedMs, heardMs, movedMs } = socket.data;
      if (sent !== null && nowMs - movedMs > answerMsMax) this.#end(socket, "it takes no answer");
      else if (session.controllerId === null && nowMs - openedMs > connectMsMax)
        this.#end(socket, "it does not say what it wants");
      else if (session.isAdmin && nowMs - heardMs > silenceMsMax) this.#end(socket, "it is silent");
    }
  }
}
