/**
 * SHA-1 (FIPS 180-4, 6.1.2) of several messages at a time by the SHA extensions of x86-64: the listing of the code.
 *
 * A message alone waits for itself: each four rounds need the result of the four before. Messages that have nothing to do with
 * each other fill that time, so the same step of all lanes stands side by side.
 *
 * A lane has four registers. `abcd` holds a to d, a in the highest word. `e` and `next` take turns with e, in the highest word
 * too. `latest` holds the last four words of the schedule W; the sixteen that are still needed are on the stack, each four of
 * them written over by those of sixteen rounds later. Waiting for a word to come back from the stack would cost a third of the
 * rate with four lanes, which is why the latest ones stay in their register.
 */
import {
  Assembler,
  at,
  type Gpr,
  type Memory,
  type Place,
  placed,
  r8,
  r9,
  r10,
  r11,
  rax,
  rdi,
  rsi,
  rsp,
  type Xmm,
  xmm,
} from "./assembler.ts";

/** What sixteen registers are enough for. */
export const LANES_MAX = 4;
export const BLOCK_BYTES = 64;
/** Of a lane's state, aligned to 16: h0 to h4 as the processor's own words. */
export const STATE_BYTES = 32;
/** Of a lane in the table that a function is given: the address of its state and, behind it, of its data. */
export const ROW_BYTES = 16;
const ROW_DATA = 8;

/** Four rounds each; 0 to 3 take what the message says, each later one makes its words of those before. */
const GROUPS = 20;
const GROUPS_GIVEN = 4;
const GROUPS_PER_FUNCTION = 5;

/** The instructions want the first of four words in the highest place, and of e nothing but that place. */
const REVERSED_WORDS = 0b00_01_10_11;
const HIGHEST = 3;
const STATE_E = 16;
/** A message's words are big-endian. */
const REVERSED_BYTES = Uint8Array.from({ length: 16 }, (_, index) => 15 - index);
/** A call leaves the stack 8 bytes off a multiple of 16. */
const RETURN_ADDRESS_BYTES = 8;

interface Lane {
  readonly state: Memory;
  readonly data: Gpr;
  readonly dataInRow: Memory;
  readonly abcd: Xmm;
  /** These three change their registers with each other as the listing goes on. */
  e: Xmm;
  next: Xmm;
  latest: Xmm;
  /** Where e is when a block begins. */
  readonly eAtStart: Xmm;
  /** The words of group i are in place i mod 4. */
  readonly words: readonly Memory[];
  readonly abcdBefore: Memory;
  readonly eBefore: Memory;
}

/** Code, and where its functions begin: `compress[n - 1]` is that of n lanes. */
export interface Listing {
  readonly bytes: Uint8Array;
  readonly compress: readonly Place[];
}

/** void compress(const struct { uint32_t *state; const uint8_t *data; } table[lanes], uint64_t blocks), for each number of lanes. */
export function assembleSha1(): Listing {
  const asm = new Assembler();
  const reversedBytes = placed(asm.data16(REVERSED_BYTES));
  const compress: Place[] = [];
  for (let lanes = 1; lanes <= LANES_MAX; lanes++) {
    asm.align16();
    compress.push(asm.here);
    writeFunction(asm, lanes, reversedBytes);
  }
  return { bytes: asm.bytes, compress };
}

/** `blocks` is at least 1. */
function writeFunction(asm: Assembler, laneCount: number, reversedBytes: Memory): void {
  const lanes: Lane[] = [];
  let stackBytes = 0;
  const onStack = () => {
    stackBytes += 16;
    return at(rsp, stackBytes - 16);
  };
  for (let index = 0; index < laneCount; index++) lanes.push(allocate(index, onStack));
  const blocks = rsi;

  asm.sub(rsp, stackBytes + RETURN_ADDRESS_BYTES);
  for (const lane of lanes) loadState(asm, lane);
  const nextBlock = asm.here;
  for (const lane of lanes) loadBlock(asm, lane, reversedBytes);
  for (let group = 0; group < GROUPS; group++) {
    if (group >= GROUPS_GIVEN) for (const lane of lanes) makeWords(asm, lane, group);
    for (const lane of lanes) fourRounds(asm, lane, group);
  }
  for (const lane of lanes) addState(asm, lane);
  asm.sub(blocks, 1);
  asm.jnz(nextBlock);
  for (const lane of lanes) storeState(asm, lane);
  asm.add(rsp, stackBytes + RETURN_ADDRESS_BYTES);
  asm.ret();
}

function allocate(index: number, onStack: () => Memory): Lane {
  const [abcd, e, next, latest] = xmm.slice(4 * index);
  return {
    state: at(rdi, index * ROW_BYTES),
    dataInRow: at(rdi, index * ROW_BYTES + ROW_DATA),
    data: [r8, r9, r10, r11][index],
    abcd,
    e,
    next,
    latest,
    eAtStart: e,
    words: [onStack(), onStack(), onStack(), onStack()],
    abcdBefore: onStack(),
    eBefore: onStack(),
  };
}

function loadState(asm: Assembler, { state, data, dataInRow, abcd, e }: Lane): void {
  asm.mov(data, dataInRow);
  asm.mov(rax, state);
  asm.pshufd(abcd, at(rax), REVERSED_WORDS);
  asm.pxor(e, e);
  asm.pinsrd(e, at(rax, STATE_E), HIGHEST);
}

function storeState(asm: Assembler, { state, abcd, e }: Lane): void {
  asm.mov(rax, state);
  asm.pshufd(abcd, abcd, REVERSED_WORDS);
  asm.movdqa(at(rax), abcd);
  asm.pextrd(at(rax, STATE_E), e, HIGHEST);
}

function loadBlock(asm: Assembler, { data, abcd, e, latest, words, abcdBefore, eBefore }: Lane, order: Memory): void {
  asm.movdqa(abcdBefore, abcd);
  asm.movdqa(eBefore, e);
  words.forEach((place, group) => {
    asm.movdqu(latest, at(data, group * 16));
    asm.pshufb(latest, order);
    asm.movdqa(place, latest);
  });
}

/** W[t] = ROTL1(W[t-3] ^ W[t-8] ^ W[t-14] ^ W[t-16]) for four t: `next` is free until the rounds need it. */
function makeWords(asm: Assembler, lane: Lane, group: number): void {
  const { next: made, latest, words } = lane;
  const place = words[group % 4];
  asm.movdqa(made, place);
  asm.sha1msg1(made, words[(group + 1) % 4]);
  asm.pxor(made, words[(group + 2) % 4]);
  asm.sha1msg2(made, latest);
  asm.movdqa(place, made);
  lane.latest = made;
  lane.next = latest;
}

function fourRounds(asm: Assembler, lane: Lane, group: number): void {
  const { abcd, e, next } = lane;
  const words = group < GROUPS_GIVEN ? lane.words[group] : lane.latest;
  // Of the first group e is as it was; of each later one it is what a was four rounds before, rotated.
  if (group === 0) asm.paddd(e, words);
  else asm.sha1nexte(e, words);
  asm.movdqa(next, abcd);
  asm.sha1rnds4(abcd, e, Math.floor(group / GROUPS_PER_FUNCTION));
  lane.e = next;
  lane.next = e;
}

/** H(i) = H(i-1) + what the rounds made of it. */
function addState(asm: Assembler, lane: Lane): void {
  const { data, abcd, abcdBefore, e, eBefore, eAtStart } = lane;
  asm.sha1nexte(e, eBefore);
  asm.paddd(abcd, abcdBefore);
  asm.add(data, BLOCK_BYTES);
  if (e !== eAtStart) asm.movdqa(eAtStart, e);
  lane.e = eAtStart;
}
