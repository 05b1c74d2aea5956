/** `bun test/sim/run.ts --nodes N --seed S [...]`: one deployment in virtual time, and what it cost. */
import { parseArgs } from "node:util";
import { formatBytes, KiB, MiB } from "../../src/units.ts";
import { Fleet } from "./fleet.ts";

const { values } = parseArgs({
  options: {
    nodes: { type: "string", default: "50" },
    seed: { type: "string", default: "1" },
    pieces: { type: "string", default: "256" },
    "piece-kib": { type: "string", default: "1024" },
    slots: { type: "string", default: "4" },
    "seeder-slots": { type: "string", default: "6" },
    "rate-mib": { type: "string", default: "119" },
    "latency-ms": { type: "string", default: "0.1" },
    "join-ms": { type: "string", default: "50" },
    window: { type: "string", default: "0" },
    "in-flight": { type: "string", default: "8" },
    "outstanding-kib": { type: "string", default: "1024" },
    slabs: { type: "string", default: "48" },
  },
});
const number = (name: keyof typeof values): number => Number(values[name]);
const startedMs = performance.now();
const fleet = Fleet.of({
  seed: number("seed"),
  nodes: number("nodes"),
  pieceCount: number("pieces"),
  pieceBytes: number("piece-kib") * KiB,
  slabBytes: Math.min(1024, number("piece-kib")) * KiB,
  slabsMax: number("slabs"),
  linkBytesPerMs: (number("rate-mib") * MiB) / 1000,
  latencyMs: number("latency-ms"),
  joinMs: number("join-ms"),
  lastPieceBytes: 0,
  tuning: {
    windowPieces: number("window"),
    uploadSlots: number("slots"),
    piecesInFlightMax: number("in-flight"),
    outstandingBytesPerSource: number("outstanding-kib") * KiB,
    blockBytesMax: Math.min(1024, number("piece-kib")) * KiB,
  },
  tuningOf: (index) => (index === 0 ? { uploadSlots: number("seeder-slots") } : {}),
});
const complete = fleet.runUntil(() => fleet.allComplete, 100 * fleet.boundMs + 60_000);
const times = fleet.living.map((node) => node.completedMs).sort((a, b) => a - b);
const bound = fleet.boundMs;
const ratio = (ms: number): string => (ms / bound).toFixed(3);
const wasted =
  fleet.living.reduce((sum, node) => sum + node.link.downBytes - node.swarm.downloadedBytes, 0) / fleet.living.length;
console.log(
  `seed ${fleet.options.seed}: ${fleet.options.nodes} nodes, ${formatBytes(fleet.totalBytes)} in ${fleet.options.pieceCount} pieces; ${complete ? "all complete" : "NOT COMPLETE"}`,
);
console.log(
  `T / (F/B): first ${ratio(times[0])}  median ${ratio(times[times.length >> 1])}  last ${ratio(times[times.length - 1])}   (F/B = ${bound.toFixed(0)} ms)`,
);
console.log(
  `seeder sent ${(fleet.seeder.link.upBytes / fleet.totalBytes).toFixed(2)} images; beside the payload each node received ${formatBytes(wasted)}`,
);
console.log(
  `${fleet.clock.ran} events, hash ${fleet.eventHash.toString(16)}, ${((performance.now() - startedMs) / 1000).toFixed(1)} s of CPU`,
);
if (!complete) {
  for (const node of fleet.living.filter((each) => !each.complete).slice(0, 5)) {
    console.log(
      `node ${node.index}: ${node.swarm.haveCount} pieces, ${node.swarm.peerCount} peers, in flight ${node.swarm.picker.inFlight.length}, missing ${node.swarm.picker.missingCount}`,
    );
  }
  process.exitCode = 1;
}
