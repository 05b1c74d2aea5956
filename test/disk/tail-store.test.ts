/** Bytes of an image beyond the end of a smaller disk. */
import { afterEach, expect, test } from "bun:test";
import { TailStore } from "../../src/disk/tail-store.ts";
import { type Memory, mapMemory } from "../../src/kernel/memory.ts";
import { extentsOf } from "./support.ts";

const memories: Memory[] = [];
afterEach(() => {
  for (const memory of memories.splice(0)) memory.free();
});

function memoryWith(text: string): Memory {
  const memory = mapMemory(4096);
  memory.bytes.set(Buffer.from(text));
  memories.push(memory);
  return memory;
}

function read(tail: TailStore, offsetBytes: number, lengthBytes: number): string {
  const memory = memoryWith("");
  tail.read(offsetBytes, memory.address, lengthBytes);
  return Buffer.from(memory.bytes.subarray(0, lengthBytes)).toString("latin1");
}

test("are kept by extent, and handed to another thread", () => {
  const extents = extentsOf([
    [0, 100],
    [900, 200],
    [5000, 10],
  ]);
  expect(TailStore.beyond(extents, 5010)).toBeNull();
  const tail = TailStore.beyond(extents, 1000)!;
  expect([tail.startBytes, tail.totalBytes]).toEqual([1000, 110]);
  expect(read(tail, 1000, 3)).toBe("\0\0\0");
  tail.write(1098, memoryWith("ab").address, 2);
  tail.write(5000, memoryWith("0123456789").address, 10);
  const other = new TailStore(structuredClone(tail.content));
  expect(read(other, 1097, 3)).toBe("\0ab");
  expect(read(other, 5003, 4)).toBe("3456");
});

test("are never asked for what is on the disk, or in no extent", () => {
  const tail = TailStore.beyond(extentsOf([[900, 200]]), 1000)!;
  expect(() => read(tail, 999, 2)).toThrow("beyond the disk's end");
  expect(() => read(tail, 1099, 2)).toThrow("one extent");
});
