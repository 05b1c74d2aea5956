/**
 * A deployment from the first look at the target to the end of lingering: what `Node` is told to wait for.
 *
 * States: fetching (pieces come, zero ranges are zeroed) -> flushing (everything but the head is in the
 * device's cache: flush, write the head, flush) -> lingering (proven; serving others) -> over. `done` is
 * said on the way from flushing to lingering, and nowhere else.
 */
import type { HeadGuard } from "../disk/head-guard.ts";
import type { Target } from "../disk/target.ts";
import type { ZeroRanges } from "../disk/zero.ts";
import { assert, DiskFault, ExitCode, Failure } from "../errors.ts";
import { nowMs as clockMs } from "../kernel/clock.ts";
import { Errno, errnoText } from "../kernel/libc.ts";
import type { Reactor, Token } from "../kernel/reactor.ts";
import type { SwarmReport } from "../swarm/actions.ts";
import type { Metainfo } from "../torrent/types.ts";
import { formatBytes, formatDuration } from "../units.ts";
import type { PeerOptions, PeerStats } from "./api.ts";
import type { Inbox, PeersListener } from "./inbox.ts";
import type { Node, NodeObserver } from "./node.ts";
import type { Reporter } from "./reporter.ts";
import { Op, token, tokenIndex, tokenOp } from "./tokens.ts";

const enum State {
  fetching,
  flushing,
  lingering,
}

/** `--linger swarm`: nobody may have asked for this long before a finished node believes that all are done. */
const QUIET_MS = 3_000;

/** Sources that are connected but send nothing (a long queue, a stopped process) are borne this many time-outs long. */
const STALL_TIMEOUTS = 5;

export interface DeploymentParts {
  readonly options: PeerOptions;
  readonly metainfo: Metainfo;
  readonly target: Target;
  readonly head: HeadGuard;
  readonly zeroes: ZeroRanges;
  readonly inbox: Inbox;
  readonly reporter: Reporter;
  readonly reactor: Reactor;
  /** Bytes found on the target already. */
  readonly bytesReused: number;
  /** Monotonic ms at which the work began. */
  readonly startedMs: number;
}

export class Deployment implements NodeObserver {
  node: Node | null = null;
  /** The proof was given. */
  isDone = false;
  #state = State.fetching;
  /** Zeroing was let go. */
  #hasBegun = false;
  #syncsPending = 0;
  #lingerEndMs = 0;
  #lastUsefulMs: number;

  /** Made once: a turn of the loop allocates nothing. */
  readonly #stats = () => this.stats();
  readonly #addPeers: PeersListener = (addresses, origin) =>
    this.#requireNode().swarm.addPeers(clockMs(), addresses, origin);

  constructor(readonly parts: DeploymentParts) {
    this.#lastUsefulMs = parts.startedMs;
  }

  get busy(): boolean {
    return !this.parts.zeroes.idle || this.#syncsPending > 0;
  }

  report(event: SwarmReport): void {
    this.parts.reporter.swarm(event);
  }

  acceptFailed(errno: number): void {
    this.parts.reporter.acceptFailed(errno);
  }

  completed(operation: Token, result: number): void {
    if (tokenOp(operation) === Op.zero) this.parts.zeroes.completed(tokenIndex(operation), result);
    else if (tokenOp(operation) === Op.sync) this.#synced(result);
    else this.parts.inbox.completed(operation);
  }

  turn(nowMs: number): boolean {
    const { inbox, reporter, zeroes } = this.parts;
    const node = this.#requireNode();
    inbox.receive(this.#addPeers);
    if (this.#mayWrite(node)) zeroes.pump();
    reporter.progress(nowMs, this.#stats);
    if (inbox.stopped && this.#state !== State.flushing) {
      zeroes.stop();
      return true;
    }
    switch (this.#state) {
      case State.fetching:
        if (node.swarm.bytesLeft === 0 && node.intake?.active === 0 && zeroes.finished) this.#flush();
        else this.#checkTimeout(nowMs, node);
        return false;
      case State.flushing:
        return false;
      case State.lingering:
        return this.#lingered(nowMs, node);
    }
  }

  /** Nothing on the target changes before somebody is there to fetch from: a wrong address must not cost a system. */
  #mayWrite(node: Node): boolean {
    if (this.#hasBegun) return true;
    const { zeroes, head } = this.parts;
    if (zeroes.finished || !(node.swarm.hasSource || node.swarm.bytesLeft === 0)) return false;
    head.invalidate();
    this.#hasBegun = true;
    return true;
  }

  stats(): PeerStats {
    const { metainfo, bytesReused } = this.parts;
    const swarm = this.#requireNode().swarm;
    const phases = { [State.fetching]: "fetch", [State.flushing]: "flush", [State.lingering]: "serve" } as const;
    return {
      phase: phases[this.#state],
      bytesDone: metainfo.extents.totalBytes - swarm.bytesLeft,
      bytesTotal: metainfo.extents.totalBytes,
      bytesFetched: swarm.downloadedBytes,
      bytesReused,
      bytesUploaded: swarm.uploadedBytes,
      bytesReceived: this.#requireNode().wireReceivedBytes,
      bytesSent: this.#requireNode().wireSentBytes,
      bytesLeft: swarm.bytesLeft,
      piecesMissing: metainfo.pieceCount - swarm.haveCount,
      peers: swarm.peerCount,
    };
  }

  /** Everything is written: make the device keep it. */
  #flush(): void {
    this.#state = State.flushing;
    this.parts.reporter.phase("flush");
    this.#syncsPending = 1;
    this.parts.reactor.sync(this.parts.target.files.bufferedFd, token(Op.sync, 0));
  }

  #synced(result: number): void {
    if (result === -Errno.EINTR) {
      this.parts.reactor.sync(this.parts.target.files.bufferedFd, token(Op.sync, 0));
      return;
    }
    if (result < 0) {
      const detail = `${errnoText(result)}; what was written may be lost, the disk is not to be trusted`;
      throw new DiskFault(this.parts.target.files.path, "flush", 0, -result, detail);
    }
    this.#syncsPending--;
    this.parts.head.commit();
    this.parts.target.flush();
    this.#prove();
  }

  #prove(): void {
    const { options, reporter, startedMs } = this.parts;
    const node = this.#requireNode();
    assert(node.swarm.bytesLeft === 0 && this.#syncsPending === 0, "done means proven and flushed");
    const now = clockMs();
    this.#state = State.lingering;
    this.#lastUsefulMs = now;
    this.#lingerEndMs = options.lingerMs === "swarm" ? Number.POSITIVE_INFINITY : now + options.lingerMs;
    this.isDone = true;
    reporter.phase("serve");
    const sources = [...node.shares()].map(([peer, bytes]) => ({ peer, bytes }));
    sources.sort((a, b) => b.bytes - a.bytes);
    const seconds = (now - startedMs) / 1000;
    const tail = this.parts.target.files.tail?.content ?? null;
    reporter.post({ type: "done", stats: this.stats(), flushed: true, seconds, sources, tail });
  }

  #lingered(nowMs: number, node: Node): boolean {
    if (nowMs >= this.#lingerEndMs) return true;
    if (this.parts.options.lingerMs !== "swarm") return false;
    for (const session of node.swarm.sessions) if (!session.isSeed) this.#lastUsefulMs = nowMs;
    return nowMs - this.#lastUsefulMs >= QUIET_MS;
  }

  /** Nobody to fetch from: borne for `--timeout`. A peer that sends nothing is dropped by the swarm in its own time. */
  #checkTimeout(nowMs: number, node: Node): void {
    const { options, metainfo, reporter } = this.parts;
    if (node.swarm.bytesLeft === 0) return;
    if (node.swarm.hasSource) this.#lastUsefulMs = nowMs;
    const silentMs = nowMs - Math.max(this.parts.startedMs, node.lastPayloadMs);
    const isStalled = silentMs >= STALL_TIMEOUTS * options.timeoutMs;
    if (nowMs - Math.max(this.#lastUsefulMs, node.lastPayloadMs) < options.timeoutMs && !isStalled) return;
    const missing = `${metainfo.pieceCount - node.swarm.haveCount} of ${metainfo.pieceCount} pieces (${formatBytes(node.swarm.bytesLeft)}) are missing`;
    if (reporter.banned.length > 0) {
      const who = [...new Set(reporter.banned)].join(", ");
      const advice = "check that source (diskswarm verify) and deploy again";
      throw new Failure(
        ExitCode.integrity,
        "bad-source",
        `${missing} on ${options.path}: only wrong data was to be had, from ${who}; ${advice}`,
      );
    }
    const waited = isStalled
      ? `the connected peers sent nothing for ${formatDuration(silentMs)}`
      : `no peer had them for ${formatDuration(options.timeoutMs)}`;
    const advice =
      "start a seeder or name one with --peer, then run the same command again: what is on the target is kept";
    throw new Failure(ExitCode.nothingToFetch, "no-source", `${missing} on ${options.path}: ${waited}; ${advice}`);
  }

  #requireNode(): Node {
    assert(this.node !== null, "the node is set before it runs");
    return this.node;
  }
}
