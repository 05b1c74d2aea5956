/**
 * Between connections and whoever decides about them (a swarm, or the fetch of metadata): hands events up,
 * and does what was asked for after the event, never inside it, so that the deciding side is not re-entered.
 */
import { nowMs } from "../kernel/clock.ts";
import type { Token } from "../kernel/reactor.ts";
import type { Listener } from "../kernel/sockets.ts";
import type { SessionBuffers } from "../swarm/actions.ts";
import type { Session } from "../swarm/session.ts";
import type { PeerAddress } from "../wire/address.ts";
import type { Connection, ConnectionHost } from "./connection.ts";
import { Connections, type ConnectionsHandler } from "./connections.ts";
import { Op, tokenIndex, tokenOp } from "./tokens.ts";

/** What happens to connections; `Swarm` and `MetadataFetch` take it. */
export interface LinkEvents {
  incoming(nowMs: number, address: PeerAddress, buffers: SessionBuffers): Session | null;
  outgoing(nowMs: number, address: PeerAddress, buffers: SessionBuffers): Session;
  dialFailed(nowMs: number, address: PeerAddress): void;
  disconnected(nowMs: number, session: Session): void;
}

export interface LinkObserver {
  acceptFailed(errno: number): void;
  /** A connection is about to end. */
  ending(connection: Connection): void;
}

export class Links implements ConnectionsHandler {
  readonly connections: Connections;
  readonly #events: LinkEvents;
  readonly #observer: LinkObserver;
  #dirty: Connection[] = [];
  #dirtySpare: Connection[] = [];
  readonly #toClose: Session[] = [];
  readonly #toDial: PeerAddress[] = [];

  constructor(
    host: ConnectionHost,
    events: LinkEvents,
    observer: LinkObserver,
    listener: Listener,
    connectionsMax: number,
    outboxBytes: number,
  ) {
    this.#events = events;
    this.#observer = observer;
    this.connections = new Connections(host, this, listener, connectionsMax, outboxBytes);
  }

  get hasWork(): boolean {
    return this.#dirty.length > 0 || this.#toClose.length > 0 || this.#toDial.length > 0;
  }

  /** Asked for inside an event: dial, close and look at a session when the event is over. */
  dialLater(address: PeerAddress): void {
    this.#toDial.push(address);
  }

  closeLater(session: Session): void {
    this.#toClose.push(session);
  }

  look(session: Session): void {
    this.#queue(session.userData as Connection);
  }

  /** Does what was asked for since the last call. */
  settle(): void {
    for (let session = this.#toClose.pop(); session !== undefined; session = this.#toClose.pop()) {
      const connection = session.userData as Connection;
      if (connection.session === session) this.connections.close(connection);
    }
    for (let address = this.#toDial.pop(); address !== undefined; address = this.#toDial.pop()) {
      this.connections.dial(address, nowMs());
    }
    const dirty = this.#dirty;
    this.#dirty = this.#dirtySpare;
    this.#dirtySpare = dirty;
    for (const connection of dirty) {
      connection.queued = false;
      connection.pump();
    }
    dirty.length = 0;
  }

  /** Takes the completion of an operation on a socket; false where it is of something else. */
  completed(operation: Token, result: number): boolean {
    const index = tokenIndex(operation);
    switch (tokenOp(operation)) {
      case Op.receive:
      case Op.send: {
        const connection = this.connections.at(index);
        if (tokenOp(operation) === Op.receive) connection.received(result);
        else connection.sent(result);
        if (connection.closing) this.connections.reap(connection);
        else this.#queue(connection);
        return true;
      }
      case Op.connect:
        this.connections.connectCompleted(index, result);
        return true;
      case Op.accept:
        this.connections.acceptCompleted(result, nowMs());
        return true;
      default:
        return false;
    }
  }

  /** Sessions that wait for something other than their socket are looked at again. */
  lookAtUploads(): void {
    for (const connection of this.connections) {
      if (connection.session !== null && connection.session.uploadCount > 0) this.#queue(connection);
    }
  }

  // ConnectionsHandler

  accepted(connection: Connection): void {
    const session = this.#events.incoming(nowMs(), connection.address, { outbox: connection.outbox });
    if (session !== null) this.#attach(connection, session);
  }

  dialled(connection: Connection): void {
    this.#attach(connection, this.#events.outgoing(nowMs(), connection.address, { outbox: connection.outbox }));
  }

  dialFailed(address: PeerAddress): void {
    this.#events.dialFailed(nowMs(), address);
  }

  ended(connection: Connection): void {
    this.#observer.ending(connection);
    if (connection.session !== null) this.#events.disconnected(nowMs(), connection.session);
  }

  acceptFailed(errno: number): void {
    this.#observer.acceptFailed(errno);
  }

  #attach(connection: Connection, session: Session): void {
    connection.session = session;
    session.userData = connection;
    this.#queue(connection);
  }

  #queue(connection: Connection): void {
    if (connection.queued) return;
    connection.queued = true;
    this.#dirty.push(connection);
  }
}
