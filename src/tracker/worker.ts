/**
 * The tracker's thread: one registry behind an HTTP and a UDP socket on a synchronous reactor. It never returns
 * to an event loop; the main thread reaches it through a mailbox and a bell.
 */
import { workerData } from "node:worker_threads";
import { assert } from "../errors.ts";
import { nowMs } from "../kernel/clock.ts";
import { EventFd } from "../kernel/eventfd.ts";
import { openReactor } from "../kernel/select.ts";
import { Mailbox } from "../peer/mailbox.ts";
import { HANDOVER_TOKENS, Handovers } from "./handover.ts";
import { HTTP_TOKENS, HttpServer } from "./http-server.ts";
import { Registry } from "./registry.ts";
import { UdpServer } from "./udp.ts";
import type { TrackerMessage, TrackerReport, TrackerStats, TrackerWorkerData } from "./worker-messages.ts";

declare const self: { postMessage(report: TrackerReport): void };

const BELL_TOKEN = 0;
const UDP_TOKEN = 1;
const HTTP_BASE = 2;
const HANDOVER_BASE = HTTP_BASE + HTTP_TOKENS;
const TOKENS = HANDOVER_BASE + HANDOVER_TOKENS;
/** How often deadlines are looked at; nothing is woken for that while there is no client. */
const SWEEP_INTERVAL_MS = 500;
/** Operations submitted at once; a burst of clients needs one or two each. */
const QUEUE_DEPTH = 512;

class TrackerThread {
  readonly #bell: EventFd;
  readonly #mailbox: Mailbox<TrackerMessage>;
  readonly #reactor = openReactor("auto", QUEUE_DEPTH);
  readonly #registry: Registry;
  readonly #udp: UdpServer;
  readonly #udpFd: number;
  readonly #http: HttpServer;
  readonly #handovers: Handovers;
  #allowed: string[] = [];
  #isStopping = false;

  constructor(data: TrackerWorkerData) {
    this.#bell = EventFd.of(data.bellFd);
    this.#mailbox = new Mailbox(data.mailboxMemory);
    const reactor = this.#reactor;
    const registry = new Registry({ open: data.open, random: Math.random });
    this.#registry = registry;
    this.#udp = new UdpServer({ registry, listen: data.listen, now: nowMs, fd: data.udpFd });
    const { pagesSocket, listen, idleMs, tcpFd: listenFd } = data;
    this.#handovers = new Handovers({ reactor, pagesSocket, now: nowMs, tokenBase: HANDOVER_BASE });
    const handovers = this.#handovers;
    this.#http = new HttpServer({
      reactor,
      registry,
      listen,
      listenFd,
      idleMs,
      handovers,
      now: nowMs,
      tokenBase: HTTP_BASE,
    });
    reactor.pollIn(data.bellFd, BELL_TOKEN);
    reactor.pollIn(data.udpFd, UDP_TOKEN);
    this.#udpFd = data.udpFd;
    // The mailbox may have had messages before anybody listened to its bell.
    this.#readMailbox();
  }

  /** Serves until it is told to stop. */
  run(): void {
    const onCompletion = (token: number, result: number) => this.#onCompletion(token, result);
    let sweepAtMs = nowMs() + SWEEP_INTERVAL_MS;
    while (this.#reactor.inFlight > 0) {
      const isQuiet = this.#http.isQuiet && this.#handovers.count === 0;
      this.#reactor.run(isQuiet ? Number.POSITIVE_INFINITY : SWEEP_INTERVAL_MS, onCompletion);
      const now = nowMs();
      if (now < sweepAtMs) continue;
      sweepAtMs = now + SWEEP_INTERVAL_MS;
      this.#http.sweep(now);
      this.#handovers.sweep(now);
    }
    this.#udp.close();
    this.#handovers.free();
    this.#http.free();
    this.#reactor.close();
  }

  #onCompletion(token: number, result: number): void {
    if (token >= HANDOVER_BASE) {
      assert(token < TOKENS, `token ${token} of nobody`);
      this.#handovers.onCompletion(token, result);
    } else if (token >= HTTP_BASE) this.#http.onCompletion(token, result);
    else if (this.#isStopping) return;
    else if (token === UDP_TOKEN) {
      this.#udp.serve();
      this.#reactor.pollIn(this.#udpFd, UDP_TOKEN);
    } else {
      this.#bell.reset();
      this.#readMailbox();
      if (!this.#isStopping) this.#reactor.pollIn(this.#bell.fd, BELL_TOKEN);
    }
  }

  #readMailbox(): void {
    for (let message = this.#mailbox.receive(); message; message = this.#mailbox.receive()) this.#hear(message);
  }

  #hear(message: TrackerMessage): void {
    if (message.type === "stats") self.postMessage({ type: "stats", id: message.id, stats: this.#stats() });
    else if (message.type === "allow") {
      this.#allowed.push(...message.infoHashes);
      if (!message.isLast) return;
      this.#registry.setAllowed(this.#allowed);
      this.#allowed = [];
    } else {
      this.#isStopping = true;
      this.#reactor.cancel(UDP_TOKEN);
      this.#reactor.cancel(BELL_TOKEN);
      this.#http.stop();
      this.#handovers.stop();
    }
  }

  #stats(): TrackerStats {
    const swarms: TrackerStats["swarms"][number][] = [];
    for (const infoHash of this.#registry.infoHashes()) {
      const counts = this.#registry.scrape(nowMs(), infoHash);
      if (counts !== null) swarms.push({ infoHash, ...counts });
    }
    return { peers: this.#registry.peerCount, swarms };
  }
}

try {
  new TrackerThread(workerData as TrackerWorkerData).run();
  self.postMessage({ type: "ended" });
} catch (error) {
  self.postMessage({
    type: "failed",
    message: error instanceof Error ? (error.stack ?? error.message) : String(error),
  });
}
