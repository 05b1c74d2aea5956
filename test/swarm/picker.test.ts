/** The picker on boards drawn as strings: one row per source, `x` where it has the piece. */
import { describe, expect, test } from "bun:test";
import { BlockRing } from "../../src/swarm/block-ring.ts";
import { Picker } from "../../src/swarm/picker.ts";
import { Random } from "../../src/swarm/random.ts";
import { RarityOrder } from "../../src/swarm/rarity.ts";
import type { Session } from "../../src/swarm/session.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";

const UNIT = 16 * 1024;

interface Board {
  readonly picker: Picker;
  readonly sources: Session[];
}

function bits(row: string): Bitfield {
  const field = new Bitfield(row.length);
  for (let i = 0; i < row.length; i++) if (row[i] === "x") field.set(i);
  return field;
}

/** `ours` is what we have; a row of `x` alone is a seed. */
function board(ours: string, rows: string[], change: { seed?: number; unitsPerPiece?: number } = {}): Board {
  const pieceBytes = (change.unitsPerPiece ?? 4) * UNIT;
  const picker = new Picker(
    {
      pieceCount: ours.length,
      pieceBytes,
      totalBytes: ours.length * pieceBytes - 100,
      sessionsMax: 30,
      random: new Random(change.seed ?? 1),
    },
    bits(ours),
  );
  const sources = rows.map((row, index) => {
    const remoteHave = bits(row);
    if (!remoteHave.all)
      for (let piece = 0; piece < row.length; piece++) if (remoteHave.has(piece)) picker.rarity.increment(piece);
    return {
      remoteHave,
      isSeed: remoteHave.all,
      outstanding: new BlockRing(64),
      banKey: `source ${index}`,
      source: { suspected: false },
    } as unknown as Session;
  });
  return { picker, sources };
}

describe("rarest first", () => {
  test.each([
    ["the only missing piece", "xx.x", ["xxxx"], 2],
    ["the rarest that the source has", "....", ["xx..", "x...", "x..."], 1],
    ["what only the seed has, from the seed", "....", ["xxxx", "xx.x", "xx.x"], 2],
    ["nothing the source does not have", "....", ["..x.", "xxxx"], 2],
    ["nothing where we have all it has", "x...", ["x..."], -1],
    ["nothing of a source without anything", "....", ["....", "xxxx"], -1],
  ])("%s", (_name, ours, rows, expected) => {
    for (let seed = 1; seed <= 10; seed++) {
      const { picker, sources } = board(ours, rows, { seed });
      expect(picker.pickNew(sources[0])).toBe(expected);
    }
  });

  test("ties are broken at random: every one of the rarest is picked by some node", () => {
    const picked = new Set<number>();
    for (let seed = 1; seed <= 100; seed++) {
      const { picker, sources } = board("........", ["xxxxxxxx", "xx......"], { seed });
      picked.add(picker.pickNew(sources[0]));
    }
    expect([...picked].sort()).toEqual([2, 3, 4, 5, 6, 7]);
  });

  test("a begun piece is not picked again until it is dropped", () => {
    const { picker, sources } = board("xxx.", ["xxxx"]);
    const progress = picker.begin(0, 3);
    expect(picker.pickNew(sources[0])).toBe(-1);
    expect(picker.missingCount).toBe(0);
    picker.drop(progress);
    expect(picker.pickNew(sources[0])).toBe(3);
  });
});

describe("pieces in flight", () => {
  test("an orphan goes on with a source that has it, the most advanced first", () => {
    const { picker, sources } = board("....", ["xxxx", "..xx"]);
    const [first, second] = [picker.begin(0, 0), picker.begin(0, 2)];
    expect(picker.findOrphan(sources[1])).toBe(second);
    first.requested(0, 1);
    first.claim(0, 1);
    first.unrequested(0, 1);
    first.received(0, 1, "someone");
    expect(picker.findOrphan(sources[0])).toBe(first);
    first.owner = sources[0];
    expect(picker.findOrphan(sources[0])).toBe(second);
  });

  test("a suspect piece is never shared and goes on with its one contributor only", () => {
    const { picker, sources } = board("..", ["xx", "xx"]);
    picker.markSuspect(1);
    const progress = picker.begin(0, 1);
    expect(picker.findShared(sources[0])).toBeNull();
    expect(picker.findOrphan(sources[0])).toBe(progress);
    progress.requested(0, 1);
    expect(picker.findOrphan(sources[1])).toBeNull();
    progress.claim(0, 1);
    progress.unrequested(0, 1);
    progress.received(0, 1, "source 0");
    expect(picker.findOrphan(sources[1])).toBeNull();
    expect(picker.findOrphan(sources[0])).toBe(progress);
    progress.requested(1, 3);
    expect(picker.findEndgame(sources[1], 1, Infinity)).toBeNull();
  });

  test("the endgame copies from the tail, once, and never what is arriving or asked for already", () => {
    const { picker, sources } = board(".", ["x", "x", "x"], { unitsPerPiece: 4 });
    const progress = picker.begin(0, 0);
    progress.requested(0, 4);
    for (let unit = 0; unit < 4; unit++) sources[0].outstanding.push(0, unit * UNIT, UNIT);
    expect(picker.findEndgame(sources[0], 4, Infinity)).toBeNull();
    expect(picker.findEndgame(sources[1], 2, Infinity)).toBe(progress);
    expect(picker.endgameRange).toEqual({ unit: 2, units: 2 });
    progress.requested(2, 2);
    expect(picker.findEndgame(sources[2], 2, Infinity)).toBe(progress);
    expect(picker.endgameRange).toEqual({ unit: 0, units: 2 });
    progress.claim(0, 1);
    expect(picker.findEndgame(sources[2], 2, Infinity)).toBe(progress);
    expect(picker.endgameRange).toEqual({ unit: 1, units: 1 });
  });

  test("the last piece is as long as it is", () => {
    const { picker } = board("..", ["xx"], { unitsPerPiece: 4 });
    const progress = picker.begin(0, 1);
    expect(progress.lengthBytes).toBe(4 * UNIT - 100);
    expect(progress.bytesOf(3, 1)).toBe(UNIT - 100);
    expect(progress.bytesOf(0, 4)).toBe(4 * UNIT - 100);
  });

  test("a unit is missing, requested, claimed, received; what is given back is missing again", () => {
    const { picker } = board(".", ["x"], { unitsPerPiece: 4 });
    const progress = picker.begin(0, 0);
    expect(progress.nextMissing()).toBe(0);
    progress.requested(0, 2);
    expect([progress.missingCount, progress.nextMissing(), progress.missingRun(2, 8)]).toEqual([2, 2, 2]);
    expect(progress.claim(0, 1)).toBe(true);
    expect(progress.claim(0, 1)).toBe(false);
    progress.unrequested(0, 2);
    expect([progress.missingCount, progress.nextMissing()]).toEqual([3, 1]);
    progress.unclaim(0, 1);
    expect([progress.missingCount, progress.nextMissing(), progress.claimedCount]).toEqual([4, 0, 0]);
  });
});

test("the rarity order agrees with plain counting, whatever happens", () => {
  const random = new Random(5);
  const pieceCount = 40;
  const order = new RarityOrder(pieceCount, 6, new Random(6));
  const counts = new Array<number>(pieceCount).fill(0);
  const taken = new Set<number>();
  for (let step = 0; step < 5000; step++) {
    const piece = random.below(pieceCount);
    const act = random.below(4);
    if (act === 0 && counts[piece] < 6) {
      order.increment(piece);
      counts[piece]++;
    } else if (act === 1 && counts[piece] > 0) {
      order.decrement(piece);
      counts[piece]--;
    } else if (act === 2 && !taken.has(piece)) {
      order.take(piece);
      taken.add(piece);
    } else if (act === 3 && taken.has(piece)) {
      order.giveBack(piece);
      taken.delete(piece);
    }
    const listed = Array.from({ length: order.remaining }, (_, i) => order.at(order.startOf(0) + i));
    expect(listed.map((each) => counts[each])).toEqual(listed.map((each) => counts[each]).sort((a, b) => a - b));
    expect(new Set(listed).size).toBe(pieceCount - taken.size);
    expect(listed.some((each) => taken.has(each))).toBe(false);
    for (let count = 0; count <= 6; count++) {
      expect(order.startOf(count) - order.startOf(0)).toBe(listed.filter((each) => counts[each] < count).length);
    }
  }
});

test("a block ring keeps its order while it grows, wraps and loses entries in the middle", () => {
  const random = new Random(9);
  const ring = new BlockRing(64);
  const model: number[][] = [];
  for (let step = 0; step < 20_000; step++) {
    if (random.chance(0.55) && model.length < 64) {
      const entry = [random.below(5), random.below(4), 1 + random.below(3)];
      ring.push(entry[0], entry[1], entry[2]);
      model.push(entry);
    } else if (model.length > 0) {
      const at = random.chance(0.7) ? 0 : random.below(model.length);
      ring.removeAt(at);
      model.splice(at, 1);
    }
    expect(ring.count).toBe(model.length);
    if (model.length === 0) continue;
    const at = random.below(model.length);
    expect([ring.piece(at), ring.begin(at), ring.length(at)]).toEqual(model[at]);
    expect(ring.find(model[at][0], model[at][1], model[at][2])).toBe(
      model.findIndex((each) => each.join() === model[at].join()),
    );
  }
});
