/**
 * Seeding a source: serve until told to stop, and notice when the source is no longer what it was.
 */
import type { Source } from "../disk/source.ts";
import { assert, ExitCode, Failure } from "../errors.ts";
import { nowMs as clockMs } from "../kernel/clock.ts";
import type { Token } from "../kernel/reactor.ts";
import type { SwarmReport } from "../swarm/actions.ts";
import type { Metainfo } from "../torrent/types.ts";
import type { PeerStats } from "./api.ts";
import type { Inbox, PeersListener } from "./inbox.ts";
import type { Node, NodeObserver } from "./node.ts";
import type { Reporter } from "./reporter.ts";

/** How often the source's size and time stamp are compared with those at the start. */
const IDENTITY_CHECK_MS = 2_000;

export class Seeding implements NodeObserver {
  node: Node | null = null;
  readonly busy = false;
  #nextCheckMs = 0;

  /** Made once: a turn of the loop allocates nothing. */
  readonly #stats = () => this.stats();
  readonly #addPeers: PeersListener = (addresses, origin) =>
    this.#requireNode().swarm.addPeers(clockMs(), addresses, origin);

  constructor(
    readonly metainfo: Metainfo,
    readonly source: Source,
    readonly inbox: Inbox,
    readonly reporter: Reporter,
  ) {}

  report(event: SwarmReport): void {
    this.reporter.swarm(event);
  }

  acceptFailed(errno: number): void {
    this.reporter.acceptFailed(errno);
  }

  completed(operation: Token): void {
    this.inbox.completed(operation);
  }

  turn(nowMs: number): boolean {
    this.inbox.receive(this.#addPeers);
    this.reporter.progress(nowMs, this.#stats);
    if (nowMs >= this.#nextCheckMs) this.#checkSource(nowMs);
    return this.inbox.stopped;
  }

  stats(): PeerStats {
    const swarm = this.#requireNode().swarm;
    const totalBytes = this.metainfo.extents.totalBytes;
    return {
      phase: "serve",
      bytesDone: totalBytes,
      bytesTotal: totalBytes,
      bytesFetched: 0,
      bytesReused: totalBytes,
      bytesUploaded: swarm.uploadedBytes,
      bytesReceived: 0,
      bytesSent: this.#requireNode().wireSentBytes,
      bytesLeft: 0,
      piecesMissing: 0,
      peers: swarm.peerCount,
    };
  }

  /** A source that changed would be served as bad pieces, and this machine banned for them. */
  #checkSource(nowMs: number): void {
    this.#nextCheckMs = nowMs + IDENTITY_CHECK_MS;
    const change = this.source.changed();
    if (change === null) return;
    throw new Failure(
      ExitCode.integrity,
      "source-changed",
      `${this.source.path} ${change} while it was seeded: capture it again`,
    );
  }

  #requireNode(): Node {
    assert(this.node !== null, "the node is set before it runs");
    return this.node;
  }
}
