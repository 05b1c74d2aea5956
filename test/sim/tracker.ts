/**
 * The tracker of a simulated fleet: the real registry, reached over HTTP with the waits of the real announcer.
 *
 * What a node learns of others it learns here and by peer exchange; local discovery is not modelled. An announce
 * is answered after the network's latency and a moment of work, and from the second on a node asks as the real one
 * does: after the interval, or sooner while it knows nobody.
 */
import { ANNOUNCE_INTERVAL_MIN_S, ANNOUNCE_INTERVAL_S } from "../../src/limits.ts";
import type { Random } from "../../src/swarm/random.ts";
import { type AnnounceEvent, Registry } from "../../src/tracker/registry.ts";
import { decodeCompact4, encodeCompact4, type PeerAddress } from "../../src/wire/address.ts";
import type { SimClock } from "./clock.ts";
import type { SimNode } from "./node.ts";

const INFO_HASH = "07".repeat(20);
/** From the announce to its answer: a TCP connection, a request and a reply on a LAN, and the tracker's work. */
const ANSWER_MS = 2;

export class SimTracker {
  private readonly registry: Registry;

  constructor(
    private readonly clock: SimClock,
    random: Random,
  ) {
    this.registry = new Registry({ open: false, random: () => random.next() / 0x1_0000_0000 });
    this.registry.setAllowed([INFO_HASH]);
  }

  /** The node is started: it announces now, at each interval and when it is complete. */
  add(node: SimNode): void {
    this.announce(node, "started");
  }

  completed(node: SimNode): void {
    this.ask(node, "completed");
  }

  private announce(node: SimNode, event: AnnounceEvent): void {
    if (!node.alive) return;
    const told = this.ask(node, event);
    const lonely = told === 0 && !node.complete;
    const delayMs = 1000 * (lonely ? ANNOUNCE_INTERVAL_MIN_S : ANNOUNCE_INTERVAL_S);
    this.clock.after(delayMs, () => this.announce(node, "none"));
  }

  /** Returns how many peers the answer names. */
  private ask(node: SimNode, event: AnnounceEvent): number {
    const reply = this.registry.announce(this.clock.nowMs, {
      infoHash: INFO_HASH,
      peerId: node.options.swarm.peerId,
      endpoint: encodeCompact4([node.options.address]),
      event,
      leftBytes: node.swarm.bytesLeft,
      peersWanted: -1,
      bothFamilies: true,
      wantsPeerIds: false,
      ownHost4: null,
      ownHost6: null,
    });
    const { count, endpoints } = reply.peers4;
    const peers: PeerAddress[] = decodeCompact4(endpoints.slice(0, 6 * count)) ?? [];
    this.clock.after(ANSWER_MS, () => node.addPeers(peers));
    return count;
  }
}
