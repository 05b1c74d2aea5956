/**
 * From a magnet link to a torrent: joins the swarm without payload until some peer has told the info
 * dictionary (BEP 9), then gives all connections back. The swarm proper is joined afterwards.
 */
import { AssertionError, ExitCode, Failure } from "../errors.ts";
import { nowMs } from "../kernel/clock.ts";
import { mapMemory } from "../kernel/memory.ts";
import type { Address, Reactor, Token } from "../kernel/reactor.ts";
import type { Listener } from "../kernel/sockets.ts";
import { MetadataFetch, type MetadataFetchActions } from "../swarm/metadata-fetch.ts";
import { OUTBOX_BYTES, TUNING_DEFAULT } from "../swarm/policy.ts";
import { Random } from "../swarm/random.ts";
import type { Session } from "../swarm/session.ts";
import { wrapInfo } from "../torrent/create.ts";
import { parseMetainfo } from "../torrent/metainfo.ts";
import { formatDuration, KiB } from "../units.ts";
import type { PeerAddress } from "../wire/address.ts";
import { makePeerId, PEER_ID_RANDOM_BYTES } from "../wire/handshake.ts";
import type { PeerOptions, PeerStats } from "./api.ts";
import type { Connection, ConnectionHost } from "./connection.ts";
import type { Inbox } from "./inbox.ts";
import { Links, type LinkObserver } from "./links.ts";
import type { Reporter } from "./reporter.ts";

const SCRATCH_BYTES = 16 * KiB;
const SLEEP_MS_MAX = 500;

/** The torrent of a magnet link as a .torrent file, and those who told of it; null when it was stopped. Throws Failure (exit 5). */
export function fetchTorrent(
  options: PeerOptions,
  magnet: { readonly infoHash: Uint8Array; readonly name: string | null },
  inbox: Inbox,
  reactor: Reactor,
  listener: Listener,
  reporter: Reporter,
): { readonly torrent: Uint8Array; readonly peers: PeerAddress[] } | null {
  const host = new MetadataHost(options, magnet.infoHash, inbox, reactor, listener, reporter);
  const infoBytes = host.run();
  if (infoBytes === null) return null;
  const torrent = wrapInfo(infoBytes, []);
  const { name, extents } = parseMetainfo(torrent);
  reporter.post({ type: "metadata", infoBytes, name, bytesTotal: extents.totalBytes });
  return { torrent, peers: host.known };
}

const NO_STATS: PeerStats = {
  phase: "metadata",
  bytesDone: 0,
  bytesTotal: 0,
  bytesFetched: 0,
  bytesReused: 0,
  bytesUploaded: 0,
  bytesReceived: 0,
  bytesSent: 0,
  // Not known yet: anything but zero, which would tell a tracker that this peer is complete.
  bytesLeft: 1,
  piecesMissing: 0,
  peers: 0,
};

class MetadataHost implements ConnectionHost, LinkObserver, MetadataFetchActions {
  readonly intake = null;
  readonly serving = null;
  readonly batch = null;
  readonly turns = 0;
  readonly packing = null;
  readonly scratchAddress: number;
  readonly scratchBytes = SCRATCH_BYTES;
  /** No payload is sent. */
  readonly sliceBytes = TUNING_DEFAULT.sliceBytesMin;
  /** Addresses heard of while the metadata was fetched: the swarm proper begins with them. */
  readonly known: PeerAddress[] = [];
  readonly #memory = mapMemory(SCRATCH_BYTES);
  readonly #fetch: MetadataFetch;
  readonly #links: Links;
  #infoBytes: Uint8Array | null = null;
  readonly #startedMs = nowMs();

  constructor(
    readonly options: PeerOptions,
    infoHash: Uint8Array,
    readonly inbox: Inbox,
    readonly reactor: Reactor,
    listener: Listener,
    readonly reporter: Reporter,
  ) {
    this.scratchAddress = this.#memory.address;
    const random = crypto.getRandomValues(new Uint8Array(PEER_ID_RANDOM_BYTES));
    this.#fetch = new MetadataFetch(
      {
        infoHash,
        peerId: makePeerId(random),
        listenPort: listener.port,
        random: new Random(new DataView(random.buffer).getInt32(0)),
        sha1: (bytes) => new Bun.CryptoHasher("sha1").update(bytes).digest(),
      },
      this,
    );
    const connectionsMax = TUNING_DEFAULT.dialMax + TUNING_DEFAULT.acceptMax;
    this.#links = new Links(this, this.#fetch, this, listener, connectionsMax, OUTBOX_BYTES);
  }

  /** The raw info dictionary, or null when it was stopped. */
  run(): Uint8Array | null {
    const { inbox, reactor } = this;
    this.reporter.phase("metadata");
    this.#add([...this.options.peers], "user");
    inbox.arm(reactor, null);
    while (this.#infoBytes === null && !inbox.stopped) {
      this.#checkTimeout();
      this.#turn();
    }
    this.#fetch.shutdown(nowMs());
    this.#links.settle();
    this.#links.connections.shutdown();
    while (!this.#links.connections.idle)
      reactor.run(SLEEP_MS_MAX, (operation, result) => this.#completed(operation, result));
    inbox.disarm();
    this.#links.connections.free();
    this.#memory.free();
    return this.#infoBytes;
  }

  // MetadataFetchActions

  dial(address: PeerAddress): void {
    this.#links.dialLater(address);
  }

  close(session: Session): void {
    this.#links.closeLater(session);
  }

  wake(session: Session): void {
    this.#links.look(session);
  }

  done(infoBytes: Uint8Array): void {
    this.#infoBytes = infoBytes;
  }

  // ConnectionHost and LinkObserver

  receivedControl(connection: Connection, bytes: Uint8Array): void {
    this.#fetch.receivedControl(nowMs(), connection.session!, bytes);
  }

  /** Nothing packed is offered before there is a piece. */
  packedAddress(): Address {
    return this.scratchAddress;
  }

  receivedPayload(connection: Connection, lengthBytes: number): void {
    this.#fetch.receivedPayload(nowMs(), connection.session!, lengthBytes);
  }

  uploadStarted(): void {}
  mayLand(): boolean {
    return false;
  }

  sourceFailed(): never {
    throw new AssertionError("nothing is served while the metadata is fetched");
  }

  uploadSent(): void {}
  ending(): void {}

  broken(connection: Connection): void {
    this.#links.connections.close(connection);
  }

  acceptFailed(errno: number): void {
    this.reporter.acceptFailed(errno);
  }

  #turn(): void {
    const now = nowMs();
    if (this.#fetch.nextTickMs() <= now) this.#fetch.tick(now);
    this.inbox.receive((addresses, origin) => this.#add(addresses, origin));
    this.reporter.progress(now, () => NO_STATS);
    const dialsMs = this.#links.connections.expireDials(now);
    this.#links.connections.accept(now);
    this.#links.settle();
    const wakeMs = Math.min(dialsMs, this.#fetch.nextTickMs(), now + SLEEP_MS_MAX);
    this.reactor.run(this.#links.hasWork ? 0 : Math.max(0, wakeMs - now), (operation, result) =>
      this.#completed(operation, result),
    );
  }

  #completed(operation: Token, result: number): void {
    if (!this.#links.completed(operation, result)) this.inbox.completed(operation);
  }

  #add(addresses: PeerAddress[], origin: "tracker" | "lsd" | "user"): void {
    this.known.push(...addresses);
    this.#fetch.addPeers(nowMs(), addresses, origin);
  }

  #checkTimeout(): void {
    const { timeoutMs } = this.options;
    if (nowMs() - this.#startedMs < timeoutMs) return;
    const text = `no peer told what the magnet link stands for within ${formatDuration(timeoutMs)}`;
    throw new Failure(
      ExitCode.nothingToFetch,
      "no-metadata",
      `${text}; name a tracker with --tracker or a seeder with --peer`,
    );
  }
}
