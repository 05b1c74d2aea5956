/**
 * All connections of a peer: listening, accepting, dialling, and ending each one in order.
 *
 * Ending has a fixed order, because the kernel may still write into a slab while an operation is in flight:
 * shut the socket down, wait until its operations have completed, close it, and only then tell the swarm.
 * Connection objects and their memory are made once and reused.
 */
import { assert } from "../errors.ts";
import { SHUT_RDWR } from "../kernel/abi.ts";
import { close, Errno, shutdown } from "../kernel/libc.ts";
import { mapMemory, type Memory } from "../kernel/memory.ts";
import { dialSocket, encodeSockaddr, type Listener, peerAddress, tuneAccepted } from "../kernel/sockets.ts";
import type { PeerAddress } from "../wire/address.ts";
import { Connection, type ConnectionHost, connectionMemoryBytes } from "./connection.ts";
import { Op, token } from "./tokens.ts";

/** A dial to a machine that is off must not hold a place for the kernel's two minutes. */
const DIAL_TIMEOUT_MS = 5_000;
/** After accept4 failed (out of descriptors), it is tried again this much later. */
const ACCEPT_RETRY_MS = 500;

export interface ConnectionsHandler {
  /** A socket was accepted; the handler sets `connection.session`, or leaves it null to refuse. */
  accepted(connection: Connection): void;
  dialled(connection: Connection): void;
  dialFailed(address: PeerAddress): void;
  /** The kernel is done with the connection; its session is still set. */
  ended(connection: Connection): void;
  /** accept4 failed. */
  acceptFailed(errno: number): void;
}

export class Connections {
  readonly #memory: Memory;
  readonly #all: Connection[] = [];
  readonly #free: Connection[] = [];
  readonly #listener: Listener;
  readonly #handler: ConnectionsHandler;
  readonly #host: ConnectionHost;
  #accepting = false;
  /** Connections whose connect operation is in flight. */
  #dialling = 0;
  #acceptAgainMs = 0;
  #closing = false;

  constructor(
    host: ConnectionHost,
    handler: ConnectionsHandler,
    listener: Listener,
    connectionsMax: number,
    outboxBytes: number,
  ) {
    this.#host = host;
    this.#handler = handler;
    this.#listener = listener;
    const eachBytes = connectionMemoryBytes(outboxBytes);
    this.#memory = mapMemory(eachBytes * connectionsMax);
    for (let index = 0; index < connectionsMax; index++) {
      this.#all.push(new Connection(index, host, this.#memory.address + index * eachBytes, outboxBytes));
    }
    for (let index = connectionsMax - 1; index >= 0; index--) this.#free.push(this.#all[index]!);
  }

  get open(): number {
    return this.#all.length - this.#free.length;
  }

  /** Every connection that is open, those being dialled too. */
  *[Symbol.iterator](): IterableIterator<Connection> {
    for (const connection of this.#all) if (connection.fd >= 0) yield connection;
  }

  at(index: number): Connection {
    return this.#all[index]!;
  }

  /** Keeps one accept in flight while there is room. */
  accept(nowMs: number): void {
    if (this.#accepting || this.#closing || this.#free.length === 0 || nowMs < this.#acceptAgainMs) return;
    this.#accepting = true;
    this.#host.reactor.accept(this.#listener.fd, token(Op.accept, 0));
  }

  acceptCompleted(result: number, nowMs: number): void {
    this.#accepting = false;
    if (result >= 0) this.#adopt(result);
    else if (!this.#closing && result !== -Errno.ECONNABORTED && result !== -Errno.EAGAIN) {
      this.#acceptAgainMs = nowMs + ACCEPT_RETRY_MS;
      this.#handler.acceptFailed(-result);
    }
    this.accept(nowMs);
  }

  dial(address: PeerAddress, nowMs: number): void {
    const connection = this.#free.pop();
    const fd = connection === undefined ? -Errno.EMFILE : dialSocket(address);
    if (connection === undefined || fd < 0) {
      if (connection !== undefined) this.#free.push(connection);
      this.#handler.dialFailed(address);
      return;
    }
    connection.reset(fd, address);
    connection.connecting = true;
    this.#dialling++;
    connection.deadlineMs = nowMs + DIAL_TIMEOUT_MS;
    const lengthBytes = encodeSockaddr(connection.sockaddrAddress, address);
    this.#host.reactor.connect(fd, connection.sockaddrAddress, lengthBytes, token(Op.connect, connection.index));
  }

  connectCompleted(index: number, result: number): void {
    const connection = this.at(index);
    connection.connecting = false;
    this.#dialling--;
    if (result === 0 && !connection.closing) {
      this.#handler.dialled(connection);
      if (connection.session === null) this.close(connection);
      return;
    }
    const address = connection.address;
    connection.closing = true;
    this.reap(connection);
    this.#handler.dialFailed(address);
  }

  /** Gives up dials that took too long. Returns the earliest deadline of the others, in monotonic ms. */
  expireDials(nowMs: number): number {
    let nextMs = this.#acceptAgainMs > nowMs ? this.#acceptAgainMs : Number.POSITIVE_INFINITY;
    if (this.#dialling === 0) return nextMs;
    for (const connection of this) {
      if (!connection.connecting || connection.closing) continue;
      if (connection.deadlineMs <= nowMs) {
        connection.closing = true;
        this.#host.reactor.cancel(token(Op.connect, connection.index));
      } else nextMs = Math.min(nextMs, connection.deadlineMs);
    }
    return nextMs;
  }

  /** Starts ending a connection; `ended` follows, perhaps inside this call. */
  close(connection: Connection): void {
    if (connection.closing) return;
    connection.closing = true;
    if (connection.connecting) this.#host.reactor.cancel(token(Op.connect, connection.index));
    else {
      // The other end may have ended the connection before us.
      const ended = shutdown(connection.fd, SHUT_RDWR);
      assert(ended === 0 || ended === -Errno.ENOTCONN, "a socket of ours is shut down");
    }
    this.reap(connection);
  }

  /** Ends a closing connection whose last operation has completed. */
  reap(connection: Connection): void {
    if (!connection.closing || connection.busy || connection.fd < 0) return;
    closeSocket(connection.fd);
    connection.fd = -1;
    if (connection.session !== null) this.#handler.ended(connection);
    connection.session = null;
    this.#free.push(connection);
  }

  /** Ends all of them and stops accepting; done when `idle`. */
  shutdown(): void {
    this.#closing = true;
    if (this.#accepting) this.#host.reactor.cancel(token(Op.accept, 0));
    for (const connection of this) this.close(connection);
  }

  get idle(): boolean {
    return !this.#accepting && this.open === 0;
  }

  /** Gives the memory back; the listening socket stays open. Nothing may be in flight. */
  free(): void {
    assert(this.idle, "connections are freed when none is open");
    this.#memory.free();
  }

  #adopt(fd: number): void {
    const address = peerAddress(fd);
    const connection = address === null ? undefined : this.#free.pop();
    if (address === null || connection === undefined) {
      closeSocket(fd);
      return;
    }
    tuneAccepted(fd);
    connection.reset(fd, address);
    this.#handler.accepted(connection);
    if (connection.session === null) this.close(connection);
  }
}

function closeSocket(fd: number): void {
  const closed = close(fd);
  assert(closed === 0 || closed === -Errno.EINTR, "a socket of ours is closed once");
}
