/**
 * Names of the operations that a peer has in flight: what it is in the low 4 bits, whose it is above.
 */
import { assert } from "../errors.ts";
import type { Token } from "../kernel/reactor.ts";

export const Op = {
  accept: 0,
  connect: 1,
  receive: 2,
  send: 3,
  disk: 4,
  zero: 5,
  mailbox: 6,
  hasher: 7,
  sync: 8,
} as const;
export type Op = (typeof Op)[keyof typeof Op];

const OP_BITS = 4;
const INDEX_MAX = 2 ** (31 - OP_BITS) - 1;

export function token(op: Op, index: number): Token {
  assert(index >= 0 && index <= INDEX_MAX, "a token's index fits 27 bits");
  return (index << OP_BITS) | op;
}

export function tokenOp(value: Token): Op {
  return (value & ((1 << OP_BITS) - 1)) as Op;
}

export function tokenIndex(value: Token): number {
  return value >>> OP_BITS;
}
