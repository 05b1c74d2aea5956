/**
 * One peer from its options to its end: opens what it needs in the order in which a user wants to hear of
 * problems (port, torrent, disk), looks at what is there, runs the node, and gives everything back.
 */
import { openHasher } from "../disk/hash-pool.ts";
import type { Hasher } from "../disk/hasher.ts";
import { HeadGuard } from "../disk/head-guard.ts";
import type { OpenDisk } from "../disk/open-disk.ts";
import { PageSource } from "../disk/page-source.ts";
import { Segments } from "../disk/segments.ts";
import { openSource } from "../disk/source.ts";
import { needsOf, openTarget } from "../disk/target.ts";
import { WriteOrder } from "../disk/write-order.ts";
import { ZeroRanges } from "../disk/zero.ts";
import { ExitCode, Failure } from "../errors.ts";
import { nowMs } from "../kernel/clock.ts";
import { mapMemory, type Memory } from "../kernel/memory.ts";
import type { Reactor } from "../kernel/reactor.ts";
import { openReactor } from "../kernel/select.ts";
import { closeListener, type Listener, listenTcp } from "../kernel/sockets.ts";
import { HEAD_BYTES } from "../limits.ts";
import type { SwarmOptions } from "../swarm/policy.ts";
import { Random } from "../swarm/random.ts";
import { rangesBelow, rangesEndBytes } from "../torrent/extents.ts";
import { parseMetainfo } from "../torrent/metainfo.ts";
import { PieceDigests } from "../torrent/piece-digests.ts";
import type { Metainfo, RangeTable } from "../torrent/types.ts";
import { formatBytes } from "../units.ts";
import { Bitfield } from "../wire/bitfield.ts";
import type { PeerAddress } from "../wire/address.ts";
import { makePeerId, PEER_ID_RANDOM_BYTES } from "../wire/handshake.ts";
import type { PeerOptions } from "./api.ts";
import { Deployment } from "./deployment.ts";
import { Inbox } from "./inbox.ts";
import { fetchTorrent } from "./metadata.ts";
import { Node, SCRATCH_BYTES } from "./node.ts";
import { type MemoryPlan, planMemory } from "./policy.ts";
import type { Reporter } from "./reporter.ts";
import { probeSource, type ScanContext, scanTarget } from "./scanning.ts";
import { Seeding } from "./seeding.ts";
import { Op, token } from "./tokens.ts";
import type { WorkerData } from "./worker-messages.ts";

/** Operations submitted at once; more wait in the reactor. */
const QUEUE_DEPTH = 256;
const NO_RANGES: RangeTable = { count: 0, diskOffsetBytes: new Float64Array(0), lengthBytes: new Float64Array(0) };

/** Runs a peer until its end. True: it was told to stop before it was done. Throws Failure. */
export function runPeer(data: WorkerData, reporter: Reporter): boolean {
  const { options } = data;
  const reactor = openReactor(options.io, QUEUE_DEPTH);
  const listener = listen(options);
  const inbox = new Inbox(data);
  const tellPort = () =>
    reporter.post({ type: "listening", port: listener.port, backend: reactor.backend, note: reactor.fallbackReason });
  let { torrent, peers } = options;
  if (!(torrent instanceof Uint8Array)) {
    // Who has the metadata is heard from trackers, so they must hear of us now.
    tellPort();
    const known = fetchTorrent(options, torrent, inbox, reactor, listener, reporter);
    if (known === null) return true;
    ({ torrent, peers } = known);
  }
  const opened = options.torrent instanceof Uint8Array ? tellPort : () => {};
  const run = new PeerRun(options, peers, inbox, reporter, reactor, listener, parseMetainfo(torrent), opened);
  const interrupted = options.role === "seed" ? run.seed() : run.deploy();
  closeListener(listener);
  reactor.close();
  return interrupted;
}

function listen(options: PeerOptions): Listener {
  try {
    return listenTcp(options.listen, options.port);
  } catch (error) {
    if (!options.portMayChange || !(error instanceof Failure) || error.exitCode !== ExitCode.failed) throw error;
    return listenTcp(options.listen, 0);
  }
}

class PeerRun {
  readonly plan: MemoryPlan;
  readonly memory: Memory;
  readonly startedMs = nowMs();
  readonly digests: PieceDigests;

  constructor(
    readonly options: PeerOptions,
    readonly peers: readonly PeerAddress[],
    readonly inbox: Inbox,
    readonly reporter: Reporter,
    readonly reactor: Reactor,
    readonly listener: Listener,
    readonly metainfo: Metainfo,
    /** To be called when source or target is open: nothing about them will be refused any more. */
    readonly opened: () => void,
  ) {
    const { memoryBytes, role, blockBytesMax, compress } = options;
    this.digests = PieceDigests.of(metainfo, options.trusted);
    this.plan = planMemory(memoryBytes, metainfo.pieceBytes, role === "seed", blockBytesMax, compress);
    this.memory = mapMemory(this.plan.slabCount * this.plan.slabBytes + this.plan.packedBytes + SCRATCH_BYTES);
  }

  seed(): boolean {
    const { options, metainfo, reporter } = this;
    const { path, direct, madeOf } = options;
    const source = openSource(path, { needBytes: rangesEndBytes(metainfo.extents), direct, madeOf });
    const files = source.files;
    const segments = this.segments(files);
    const hasher = this.openHasher();
    const isStopped = probeSource(this.scanContext(hasher, files, segments));
    hasher.close();
    if (isStopped) return true;
    this.opened();
    // Its threads start with the first block that is packed.
    const packer = options.compress ? this.openHasher() : null;
    const have = Bitfield.full(metainfo.pieceCount);
    const pages = files.direct === null ? new PageSource(files.bufferedFd, segments) : null;
    const seeding = new Seeding(metainfo, source, this.inbox, reporter);
    const node = new Node(
      { ...this.common(), hasher: packer, isSeed: true, files, segments, head: null, writeOrder: null, pages, have },
      seeding,
    );
    seeding.node = node;
    this.drive(node, packer);
    packer?.close();
    source.close();
    return true;
  }

  deploy(): boolean {
    const { options, metainfo, reporter, reactor, startedMs, inbox } = this;
    const target = openTarget(options.path, needsOf(metainfo), options);
    this.opened();
    const files = target.files;
    const zeroRanges = rangesBelow(this.zeroRanges, files.sizeBytes);
    this.tellOfTail(files);
    const segments = this.segments(files);
    const hasher = this.openHasher();
    const have = scanTarget(this.scanContext(hasher, files, segments), target.isNew);
    if (have === null) return true;
    const head = new HeadGuard(files, metainfo.extents, zeroRanges);
    const { pageBytes, hasDirect } = segments;
    const tokenOf = (slot: number) => token(Op.zero, slot);
    const zeroes = new ZeroRanges({
      reactor,
      files,
      ranges: zeroRanges,
      pageBytes,
      hasDirect,
      skipBytes: HEAD_BYTES,
      tokenOf,
    });
    const bytesReused = reusedBytes(metainfo, have);
    const deployment = new Deployment({
      options,
      metainfo,
      target,
      head,
      zeroes,
      inbox,
      reporter,
      reactor,
      bytesReused,
      startedMs,
    });
    const node = new Node(
      {
        ...this.common(),
        hasher,
        isSeed: false,
        files,
        segments,
        head,
        writeOrder: this.writeOrder(target.wantsLongRuns),
        pages: null,
        have,
      },
      deployment,
    );
    deployment.node = node;
    reporter.phase("fetch");
    this.drive(node, hasher);
    zeroes.free();
    head.free();
    hasher.close();
    target.close();
    return !deployment.isDone;
  }

  private tellOfTail({ path, sizeBytes, tail }: OpenDisk): void {
    if (!tail) return;
    const dropped = `${formatBytes(tail.totalBytes)} of the image lie behind its partitions and beyond byte ${sizeBytes}`;
    this.reporter.log(
      "info",
      "smaller-target",
      `${path} is smaller than the image's disk: ${dropped}, and are left out`,
    );
  }

  /** Runs the node and ends it in good order. */
  private drive(node: Node, hasher: Hasher | null): void {
    this.inbox.arm(this.reactor, hasher);
    node.swarm.addPeers(nowMs(), [...this.peers], "user");
    node.run();
    node.shutdown();
    this.inbox.disarm();
  }

  private scanContext(hasher: Hasher, files: OpenDisk, segments: Segments): ScanContext {
    const { reactor, memory, metainfo, digests, options, inbox, reporter } = this;
    return { reactor, memory, hasher, metainfo, digests, files, segments, options, inbox, reporter };
  }

  private get zeroRanges(): RangeTable {
    return this.metainfo.image?.zeroRanges ?? NO_RANGES;
  }

  private segments(disk: OpenDisk): Segments {
    const { extents, pieceBytes } = this.metainfo;
    return new Segments({ extents, zeroRanges: this.zeroRanges, pieceBytes, direct: disk.direct });
  }

  private writeOrder(wantsLongRuns: boolean): WriteOrder | null {
    if (!wantsLongRuns) return null;
    const { metainfo, plan } = this;
    const { pieceCount, pieceBytes, extents } = metainfo;
    const heldBytesMax = (plan.intakeSlabsMax * plan.slabBytes) / 2;
    return new WriteOrder({ pieceCount, pieceBytes, totalBytes: extents.totalBytes, heldBytesMax });
  }

  private common() {
    const { reactor, listener, metainfo, digests, plan } = this;
    const [memoryAddress, swarmOptions] = [this.memory.address, this.swarmOptions()];
    return { reactor, listener, metainfo, digests, plan, memoryAddress, swarmOptions };
  }

  private openHasher(): Hasher {
    const contextsMax = 2 * this.plan.tuning.piecesInFlightMax + 8;
    return openHasher({
      address: this.memory.address,
      lengthBytes: this.memory.lengthBytes,
      contextsMax,
      workers: "auto",
      algorithm: this.digests.algorithm,
      // A seeder's threads pack, and whoever waits for the next block waits for them.
      givesWay: this.options.role === "deploy",
    });
  }

  private swarmOptions(): SwarmOptions {
    const { metainfo, plan, listener, options } = this;
    const random = crypto.getRandomValues(new Uint8Array(PEER_ID_RANDOM_BYTES));
    return {
      ...plan.tuning,
      infoHash: metainfo.infoHash,
      peerId: makePeerId(random),
      pieceCount: metainfo.pieceCount,
      pieceBytes: metainfo.pieceBytes,
      totalBytes: metainfo.extents.totalBytes,
      listenPort: listener.port,
      slabBytes: plan.slabBytes,
      random: new Random(new DataView(random.buffer).getInt32(0)),
      metadata: metainfo.infoBytes,
      isPrivate: metainfo.isPrivate,
      seedOnly: options.role === "seed",
    };
  }
}

function reusedBytes(metainfo: Metainfo, have: Bitfield): number {
  let bytes = have.count * metainfo.pieceBytes;
  const lastBytes = metainfo.extents.totalBytes - (metainfo.pieceCount - 1) * metainfo.pieceBytes;
  if (have.has(metainfo.pieceCount - 1)) bytes -= metainfo.pieceBytes - lastBytes;
  return bytes;
}
