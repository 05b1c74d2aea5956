/**
 * A whole deployment in virtual time: a tracker, seeders and nodes, from one seed.
 *
 * Everything random comes from the seed, so a run is repeated exactly by it; `eventHash` tells two runs apart.
 */
import { type SwarmTuning, TUNING_DEFAULT, UPLOAD_SLOTS_SEEDER } from "../../src/swarm/policy.ts";
import { Random } from "../../src/swarm/random.ts";
import { KiB, MiB } from "../../src/units.ts";
import { addressKey, type PeerAddress } from "../../src/wire/address.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";
import { makePeerId } from "../../src/wire/handshake.ts";
import { SimClock, TICKS_PER_MS } from "./clock.ts";
import type { NetworkOptions } from "./network.ts";
import { type Ether, SimNode } from "./node.ts";

export interface FleetOptions {
  readonly seed: number;
  readonly nodes: number;
  readonly pieceCount: number;
  readonly pieceBytes: number;
  /** Of the last piece; 0: a whole one. */
  readonly lastPieceBytes: number;
  readonly slabBytes: number;
  /** Bytes per ms, each way, of every link. */
  readonly linkBytesPerMs: number;
  readonly latencyMs: number;
  readonly network: NetworkOptions;
  /** Slabs a node may hold while receiving. */
  readonly slabsMax: number;
  readonly writeBytesPerMs: number;
  /** Nodes join within this time. */
  readonly joinMs: number;
  readonly outboxBytes: number;
  readonly tuning: Partial<SwarmTuning>;
  /** Overrides for single nodes; node 0 is the seeder. */
  readonly tuningOf: (index: number) => Partial<SwarmTuning>;
  /** Chance per block that a node sends wrong payload. */
  readonly spoils: (index: number) => number;
  /** Nodes that have everything from the start. */
  readonly isSeeder: (index: number) => boolean;
}

export const FLEET_DEFAULT: FleetOptions = {
  seed: 1,
  nodes: 50,
  pieceCount: 64,
  pieceBytes: 1 * MiB,
  lastPieceBytes: 300 * KiB + 123,
  slabBytes: 1 * MiB,
  linkBytesPerMs: 125_000,
  latencyMs: 0.1,
  network: { turnBytes: 64 * KiB, windowBytes: 1024 * KiB },
  slabsMax: 48,
  writeBytesPerMs: 500_000,
  joinMs: 50,
  outboxBytes: 4 * KiB,
  tuning: {},
  tuningOf: () => ({}),
  spoils: () => 0,
  isSeeder: (index) => index === 0,
};

/** A tracker answers an announce with this many peers, and again after this long to one that is not complete. */
const TRACKER_PEERS = 30;
const ANNOUNCE_MS = 5_000;

export class Fleet implements Ether {
  readonly clock = new SimClock();
  readonly random: Random;
  readonly nodes: SimNode[] = [];
  readonly totalBytes: number;
  /** FNV-1a over everything noted, with its time. */
  eventHash = 0x811c9dc5;
  private readonly byAddress = new Map<string, SimNode>();
  /** Nodes that announced, as the tracker lists them. */
  private readonly announced: SimNode[] = [];
  /** Nodes that are neither complete nor dead; those still to come count. */
  private unfinished = 0;

  constructor(readonly options: FleetOptions) {
    this.random = new Random(options.seed);
    const last = options.lastPieceBytes === 0 ? options.pieceBytes : options.lastPieceBytes;
    this.totalBytes = (options.pieceCount - 1) * options.pieceBytes + last;
    for (let index = 0; index <= options.nodes; index++) {
      if (!options.isSeeder(index)) this.unfinished++;
      this.clock.at(index === 0 ? 0 : this.random.below(options.joinMs + 1), () => this.join(index));
    }
  }

  static of(options: Partial<FleetOptions>): Fleet {
    return new Fleet({ ...FLEET_DEFAULT, ...options });
  }

  get seeder(): SimNode {
    return this.nodes[0];
  }

  /** Nodes that were not killed and are not seeders from the start. */
  get living(): SimNode[] {
    return this.nodes.filter((node) => node.alive && !this.options.isSeeder(node.index));
  }

  /** Nodes whose image everybody else should get. */
  get allComplete(): boolean {
    return this.unfinished === 0;
  }

  /** Runs until the condition holds or virtual time is over; true where it held. */
  runUntil(condition: () => boolean, limitMs: number): boolean {
    while (this.clock.nowMs < limitMs) {
      if (condition()) return true;
      for (let i = 0; i < 64; i++) if (!this.clock.step()) return condition();
    }
    return condition();
  }

  /** The time a perfect swarm needs: everybody receives the image once at full rate. */
  get boundMs(): number {
    return this.totalBytes / this.options.linkBytesPerMs;
  }

  find(address: PeerAddress): SimNode | null {
    return this.byAddress.get(addressKey(address)) ?? null;
  }

  note(node: number, kind: string, value: number): void {
    if (kind === "complete") this.unfinished--;
    this.mix(this.clock.nowMs * TICKS_PER_MS);
    this.mix(node);
    this.mix(value);
    for (let i = 0; i < kind.length; i++) this.mix(kind.charCodeAt(i));
  }

  died(node: SimNode): void {
    if (!this.options.isSeeder(node.index) && !node.complete) this.unfinished--;
  }

  private mix(value: number): void {
    this.eventHash = Math.imul(this.eventHash ^ value, 0x01000193) >>> 0;
  }

  private join(index: number): void {
    const { options } = this;
    const isSeeder = options.isSeeder(index);
    const peerId = makePeerId(Uint8Array.from({ length: 12 }, () => this.random.below(256)));
    const address = { host: `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`, port: 6881 };
    const node = new SimNode(
      {
        index,
        address,
        have: isSeeder ? Bitfield.full(options.pieceCount) : new Bitfield(options.pieceCount),
        link: {
          upBytesPerMs: options.linkBytesPerMs,
          downBytesPerMs: options.linkBytesPerMs,
          latencyMs: options.latencyMs,
          rack: null,
        },
        network: options.network,
        disk: { ...options, totalBytes: this.totalBytes },
        outboxBytes: options.outboxBytes,
        spoils: options.spoils(index),
        swarm: {
          ...TUNING_DEFAULT,
          uploadSlots: isSeeder ? UPLOAD_SLOTS_SEEDER : TUNING_DEFAULT.uploadSlots,
          ...options.tuning,
          ...options.tuningOf(index),
          infoHash: new Uint8Array(20).fill(7),
          peerId,
          pieceCount: options.pieceCount,
          pieceBytes: options.pieceBytes,
          totalBytes: this.totalBytes,
          listenPort: 6881,
          slabBytes: options.slabBytes,
          random: new Random(this.random.next()),
          metadata: null,
          isPrivate: false,
          seedOnly: isSeeder,
        },
      },
      this.clock,
      this,
    );
    this.nodes[index] = node;
    this.byAddress.set(addressKey(address), node);
    this.announce(node);
  }

  private announce(node: SimNode): void {
    if (!node.alive) return;
    if (!node.isAnnounced) this.announced.push(node);
    node.isAnnounced = true;
    const picked: PeerAddress[] = [];
    for (let i = 0; i < TRACKER_PEERS * 2 && picked.length < TRACKER_PEERS; i++) {
      const other = this.announced[this.random.below(this.announced.length)];
      if (other !== node && !picked.includes(other.options.address)) picked.push(other.options.address);
    }
    node.addPeers(picked);
    if (!node.complete) this.clock.after(ANNOUNCE_MS, () => this.announce(node));
  }
}
