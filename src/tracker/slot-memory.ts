/**
 * Memory that the kernel sees, one stretch for each of many slots, mapped in chunks when a slot of theirs is
 * first used. JavaScriptCore counts a view as heap of its thread: viewing all that may ever be needed would
 * let as much garbage pile up before it collects.
 */
import { type Memory, mapMemory } from "../kernel/memory.ts";

const SLOTS_PER_CHUNK = 64;

export class SlotMemory {
  readonly #chunks: (Memory | undefined)[] = [];
  readonly #buffers: (Buffer | undefined)[] = [];

  constructor(readonly slotBytes: number) {}

  /** Address of the slot's memory. */
  address(slot: number): number {
    const index = (slot / SLOTS_PER_CHUNK) | 0;
    return (this.#chunks[index] ?? this.#map(index)).address + this.offset(slot);
  }

  /** View of the chunk that the slot is in; its part begins at `offset`. */
  buffer(slot: number): Buffer {
    const index = (slot / SLOTS_PER_CHUNK) | 0;
    if (this.#buffers[index] === undefined) this.#map(index);
    return this.#buffers[index]!;
  }

  /** Where in its chunk the slot's memory begins. */
  offset(slot: number): number {
    return (slot % SLOTS_PER_CHUNK) * this.slotBytes;
  }

  /** The kernel may have no operation in flight on any slot. */
  free(): void {
    for (const chunk of this.#chunks) chunk?.free();
  }

  #map(index: number): Memory {
    const memory = mapMemory(SLOTS_PER_CHUNK * this.slotBytes);
    this.#chunks[index] = memory;
    this.#buffers[index] = Buffer.from(memory.bytes.buffer, memory.bytes.byteOffset, memory.lengthBytes);
    return memory;
  }
}
