/**
 * Messages of the main thread, and what wakes a sleeping reactor besides sockets and disks: these messages
 * and finished hashes. Both ring an eventfd; once armed, a poll on each is kept in flight.
 */
import { assert } from "../errors.ts";
import type { Hasher } from "../disk/hasher.ts";
import { EventFd } from "../kernel/eventfd.ts";
import type { Reactor, Token } from "../kernel/reactor.ts";
import type { PeerAddress } from "../wire/address.ts";
import { Mailbox } from "./mailbox.ts";
import { Op, token, tokenOp } from "./tokens.ts";
import type { PeerMessage, WorkerData } from "./worker-messages.ts";

type PeersMessage = Extract<PeerMessage, { type: "peers" }>;
/** Hears the addresses of one message. */
export type PeersListener = (addresses: PeerAddress[], origin: PeersMessage["origin"]) => void;

/** Address lists kept for a node that is still looking at its disk; each is one announce's answer. */
const WAITING_MAX = 64;

export class Inbox {
  readonly #mailbox: Mailbox<PeerMessage>;
  readonly #bell: EventFd;
  #hasherBell: EventFd | null = null;
  #reactor: Reactor | null = null;
  #waiting: PeersMessage[] = [];
  #stopped = false;
  #polling = 0;

  constructor(data: WorkerData) {
    this.#mailbox = new Mailbox<PeerMessage>(data.mailboxMemory);
    this.#bell = EventFd.of(data.bellFd);
  }

  /** The main thread asked for the end. */
  get stopped(): boolean {
    this.#take();
    return this.#stopped;
  }

  /** Hands on the addresses that have arrived. */
  receive(peers: PeersListener): void {
    this.#take();
    if (this.#waiting.length === 0) return;
    for (const message of this.#waiting.splice(0)) peers(message.addresses, message.origin);
  }

  /** From now on messages and the hasher's reports wake the reactor. */
  arm(reactor: Reactor, hasher: Hasher | null): void {
    assert(this.#reactor === null, "an inbox is armed once at a time");
    this.#reactor = reactor;
    this.#hasherBell = hasher === null ? null : EventFd.of(hasher.wakeFd);
    this.#poll(Op.mailbox, this.#bell);
    if (this.#hasherBell !== null) this.#poll(Op.hasher, this.#hasherBell);
  }

  /** A poll completed: the eventfd is emptied and polled again. */
  completed(operation: Token): void {
    this.#polling--;
    const op = tokenOp(operation);
    const bell = op === Op.hasher ? this.#hasherBell : this.#bell;
    assert(bell !== null, "a bell that is polled exists");
    bell.reset();
    if (this.#reactor !== null) this.#poll(op, bell);
  }

  /** Ends the polls and waits for that; nothing else may be in flight. */
  disarm(): void {
    const reactor = this.#reactor;
    assert(reactor !== null, "an armed inbox is disarmed");
    this.#reactor = null;
    reactor.cancel(token(Op.mailbox, 0));
    if (this.#hasherBell !== null) reactor.cancel(token(Op.hasher, 0));
    while (this.#polling > 0) reactor.run(Number.POSITIVE_INFINITY, (operation) => this.completed(operation));
  }

  #take(): void {
    for (let message = this.#mailbox.receive(); message !== null; message = this.#mailbox.receive()) {
      if (message.type === "stop") this.#stopped = true;
      else if (this.#waiting.length < WAITING_MAX) this.#waiting.push(message);
    }
  }

  #poll(op: Op, bell: EventFd): void {
    assert(this.#reactor !== null, "polls are submitted to a reactor");
    this.#polling++;
    this.#reactor.pollIn(bell.fd, token(op, 0));
  }
}
