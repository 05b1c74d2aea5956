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
import { type NetworkOptions, Rack } from "./network.ts";
import { type Ether, SimNode } from "./node.ts";
import { SimTracker } from "./tracker.ts";

/** Leaf switches: the nodes of one have full rate among themselves and share an uplink to all others. */
export interface RackOptions {
  readonly nodesPerRack: number;
  /** What the uplink carries, as a part of what all the cables of the rack do. */
  readonly uplinkShare: number;
  /** One way between a leaf switch and the one above. */
  readonly latencyMs: number;
}

export interface Death {
  readonly node: number;
  readonly atMs: number;
  /** Power loss: nobody is told. Otherwise the process is killed and its connections are reset. */
  readonly silently: boolean;
}

export interface FleetOptions {
  readonly seed: number;
  /** Without the seeder, which is node 0. */
  readonly nodes: number;
  readonly pieceCount: number;
  readonly pieceBytes: number;
  /** Of the last piece; 0: a whole one. */
  readonly lastPieceBytes: number;
  readonly slabBytes: number;
  /** Bytes per ms, each way, of every link: goodput. */
  readonly linkBytesPerMs: number;
  /** What a node's link has of that, each way. */
  readonly rateOf: (index: number) => { readonly up: number; readonly down: number };
  /** One way between a machine and its switch. */
  readonly latencyMs: number;
  readonly network: NetworkOptions;
  /** null: all on one switch. The seeder hangs on the upper switch. */
  readonly racks: RackOptions | null;
  /** Slabs a node may hold while receiving. */
  readonly slabsMax: number;
  readonly writeBytesPerMs: number;
  readonly seekMs: number;
  /** Nodes know that their disks have heads, and put writes into order. */
  readonly ordered: boolean;
  /** Nodes join within this time; null: as `joinsAtMs` says. */
  readonly joinMs: number;
  readonly joinsAtMs: ((index: number, random: Random) => number) | null;
  readonly deaths: readonly Death[];
  readonly outboxBytes: number;
  /** Mean time until a node's thread looks at what arrived: its own work and the machine's scheduling. */
  readonly wakeMs: number;
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
  rateOf: () => ({ up: 1, down: 1 }),
  latencyMs: 0.1,
  network: { turnBytes: 64 * KiB, windowBytes: 256 * KiB, unsentBytes: 256 * KiB, queueBytes: 256 * KiB },
  racks: null,
  slabsMax: 48,
  writeBytesPerMs: 500_000,
  seekMs: 0,
  ordered: false,
  joinMs: 50,
  joinsAtMs: null,
  deaths: [],
  outboxBytes: 4 * KiB,
  wakeMs: 0,
  tuning: {},
  tuningOf: () => ({}),
  spoils: () => 0,
  isSeeder: (index) => index === 0,
};

export class Fleet implements Ether {
  readonly clock = new SimClock();
  readonly random: Random;
  readonly nodes: SimNode[] = [];
  readonly totalBytes: number;
  /** FNV-1a over everything noted, with its time. */
  eventHash = 0x811c9dc5;
  /** Pieces that some node proved. */
  readonly out: Bitfield;
  private readonly byAddress = new Map<string, SimNode>();
  private readonly tracker: SimTracker;
  private readonly racks: Rack[] = [];
  /** Nodes that died before they joined. */
  private readonly missing = new Set<number>();
  /** Nodes that are neither complete nor dead; those still to come count. */
  private unfinished = 0;

  constructor(readonly options: FleetOptions) {
    this.random = new Random(options.seed);
    this.out = new Bitfield(options.pieceCount);
    this.tracker = new SimTracker(this.clock, new Random(this.random.next()));
    const last = options.lastPieceBytes === 0 ? options.pieceBytes : options.lastPieceBytes;
    this.totalBytes = (options.pieceCount - 1) * options.pieceBytes + last;
    for (let index = 0; index <= options.nodes; index++) {
      if (!options.isSeeder(index)) this.unfinished++;
      this.clock.at(index === 0 ? 0 : this.joinTimeMs(index), () => this.join(index));
    }
    for (const death of options.deaths) this.clock.at(death.atMs, () => this.die(death));
  }

  static of(options: Partial<FleetOptions>): Fleet {
    return new Fleet({ ...FLEET_DEFAULT, ...options });
  }

  get seeder(): SimNode {
    return this.nodes[0];
  }

  /** Nodes that were not killed and are not seeders from the start. */
  get living(): SimNode[] {
    return this.nodes.filter((node) => node?.alive && !this.options.isSeeder(node.index));
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

  /** The time a perfect swarm of single bytes needs: everybody receives the image once at full rate. */
  get boundMs(): number {
    return this.totalBytes / this.options.linkBytesPerMs;
  }

  /** What pieces allow, as a multiple of `boundMs`: each is passed on only when it is whole. */
  get pieceBound(): number {
    return 1 + Math.log2(Math.max(1, this.options.nodes)) / this.options.pieceCount;
  }

  find(address: PeerAddress): SimNode | null {
    return this.byAddress.get(addressKey(address)) ?? null;
  }

  note(node: number, kind: string, value: number): void {
    if (kind === "complete") {
      this.unfinished--;
      this.tracker.completed(this.nodes[node]);
    }
    if (kind === "verified") this.out.set(value);
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

  private joinTimeMs(index: number): number {
    const { joinsAtMs, joinMs } = this.options;
    return joinsAtMs === null ? this.random.below(joinMs + 1) : joinsAtMs(index, this.random);
  }

  private die({ node, silently }: Death): void {
    if (this.nodes[node] !== undefined) return this.nodes[node].kill(silently);
    if (this.missing.has(node)) return;
    this.missing.add(node);
    if (!this.options.isSeeder(node)) this.unfinished--;
  }

  private join(index: number): void {
    if (this.missing.has(index)) return;
    const { options } = this;
    const isSeeder = options.isSeeder(index);
    const peerId = makePeerId(Uint8Array.from({ length: 12 }, () => this.random.below(256)));
    const rate = options.rateOf(index);
    const node = new SimNode(
      {
        index,
        address: { host: this.hostOf(index), port: 6881 },
        have: isSeeder ? Bitfield.full(options.pieceCount) : new Bitfield(options.pieceCount),
        link: {
          upBytesPerMs: options.linkBytesPerMs * rate.up,
          downBytesPerMs: options.linkBytesPerMs * rate.down,
          latencyMs: options.latencyMs,
          rack: this.rackOf(index),
        },
        network: options.network,
        disk: { ...options, totalBytes: this.totalBytes },
        outboxBytes: options.outboxBytes,
        wakeMs: options.wakeMs,
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
    this.byAddress.set(addressKey(node.options.address), node);
    this.tracker.add(node);
  }

  /** Machines of one rack share a network of 256 addresses. */
  private hostOf(index: number): string {
    const { racks } = this.options;
    if (racks === null) return `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
    if (index === 0) return "10.255.255.1";
    const rack = Math.floor((index - 1) / racks.nodesPerRack);
    return `10.${rack >> 8}.${rack & 255}.${1 + ((index - 1) % racks.nodesPerRack)}`;
  }

  private rackOf(index: number): Rack | null {
    const { racks, linkBytesPerMs } = this.options;
    if (racks === null || index === 0) return null;
    const at = Math.floor((index - 1) / racks.nodesPerRack);
    this.racks[at] ??= new Rack(linkBytesPerMs * racks.nodesPerRack * racks.uplinkShare, racks.latencyMs);
    return this.racks[at];
  }
}

/** `share` of the nodes die at random times within `withinMs`, every other one silently; the seeder lives. */
export function randomDeaths(seed: number, nodes: number, share: number, withinMs: number): Death[] {
  const random = new Random(seed ^ 0x5eed);
  const order = Int32Array.from({ length: nodes }, (_, i) => i + 1);
  random.shuffle(order);
  const count = Math.round(nodes * share);
  return Array.from(order.subarray(0, count), (node, i) => ({
    node,
    atMs: random.below(withinMs),
    silently: i % 2 === 1,
  }));
}
