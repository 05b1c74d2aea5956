/**
 * What wakes a sleeping reactor besides sockets and disks: messages of the main thread and finished hashes.
 * Both ring an eventfd; this keeps a poll on each in flight and remembers what the messages said.
 */
import { assert } from "../errors.ts";
import type { Hasher } from "../disk/hasher.ts";
import { EventFd } from "../kernel/eventfd.ts";
import type { Reactor, Token } from "../kernel/reactor.ts";
import type { PeerAddress } from "../wire/address.ts";
import { Mailbox } from "./mailbox.ts";
import { Op, token, tokenOp } from "./tokens.ts";
import type { PeerMessage } from "./worker-messages.ts";

export class Inbox {
  /** The main thread asked for the end. */
  stopped = false;
  readonly #mailbox: Mailbox<PeerMessage>;
  readonly #bell: EventFd;
  readonly #hasherBell: EventFd | null;
  readonly #reactor: Reactor;
  #polling = 0;
  #closing = false;

  constructor(reactor: Reactor, mailboxMemory: SharedArrayBuffer, bellFd: number, hasher: Hasher | null) {
    this.#reactor = reactor;
    this.#mailbox = new Mailbox<PeerMessage>(mailboxMemory);
    this.#bell = EventFd.of(bellFd);
    this.#hasherBell = hasher === null ? null : EventFd.of(hasher.wakeFd);
    this.#poll(Op.mailbox, this.#bell);
    if (this.#hasherBell !== null) this.#poll(Op.hasher, this.#hasherBell);
  }

  /** Takes all messages; calls `peers` for each that names addresses. */
  receive(peers: (addresses: PeerAddress[], origin: "tracker" | "lsd" | "user") => void): void {
    for (let message = this.#mailbox.receive(); message !== null; message = this.#mailbox.receive()) {
      if (message.type === "stop") this.stopped = true;
      else peers(message.addresses, message.origin);
    }
  }

  /** A poll completed: the eventfd is emptied and polled again. */
  completed(operation: Token): void {
    this.#polling--;
    const op = tokenOp(operation);
    const bell = op === Op.hasher ? this.#hasherBell : this.#bell;
    assert(bell !== null, "a bell that is polled exists");
    bell.reset();
    if (!this.#closing) this.#poll(op, bell);
  }

  /** Ends the polls; the reactor may be closed afterwards. */
  close(): void {
    this.#closing = true;
    this.#reactor.cancel(token(Op.mailbox, 0));
    if (this.#hasherBell !== null) this.#reactor.cancel(token(Op.hasher, 0));
    while (this.#polling > 0) this.#reactor.run(Number.POSITIVE_INFINITY, (operation) => this.completed(operation));
  }

  #poll(op: Op, bell: EventFd): void {
    this.#polling++;
    this.#reactor.pollIn(bell.fd, token(op, 0));
  }
}
