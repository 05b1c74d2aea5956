/**
 * What the target says of itself: the pages that Identify asks for, and the registers (NVM Express Base Specification
 * 1.4, sections 3.1 and 5.15). One namespace, in sectors of 512 bytes, that is read and never written. Pure.
 */
import { subsystemOfImage } from "../../boot/image-name.ts";
import { viewOf } from "./pdu.ts";

export const SECTOR_BYTES = 512;
export const PAGE_BYTES = 4096;
export const NAMESPACE = 1;
/** Largest read: 4 KiB times two to this power, 128 KiB. A block of the image has no more than 256 KiB, and comes in two. */
const READ_MAX_POWER = 5;
export const READ_BYTES_MAX = PAGE_BYTES * 2 ** READ_MAX_POWER;
/** Commands that may wait in one queue. Hosts of ours ask for 16, of which the admin queue of Linux has 32. */
export const QUEUE_SIZE_MAX = 128;
/** 1.2.1: the first with fabrics, and the last that does not want descriptors of namespaces. */
export const VERSION = 0x0001_0201;
/** Keep Alive's unit, in 100 ms. */
const KEEP_ALIVE_UNIT = 10;

export interface NamedImage {
  /** 64 hex digits. */
  readonly sha256: string;
  readonly lengthBytes: number;
}

export function identifyController(image: NamedImage, controllerId: number): Uint8Array {
  const page = new Uint8Array(PAGE_BYTES);
  const view = viewOf(page);
  setText(page, 4, 20, image.sha256.slice(0, 20));
  setText(page, 24, 40, "diskswarm image");
  setText(page, 64, 8, "1");
  page[77] = READ_MAX_POWER;
  view.setUint16(78, controllerId, true);
  view.setUint32(80, VERSION, true);
  // One slot of firmware, which is read-only.
  page[260] = 0x03;
  view.setUint16(320, KEEP_ALIVE_UNIT, true);
  // Entries of queues have 64 and 16 bytes.
  page[512] = 0x66;
  page[513] = 0x44;
  view.setUint16(514, QUEUE_SIZE_MAX, true);
  view.setUint32(516, NAMESPACE, true);
  // Scatter lists, and in a capsule an offset for an address.
  view.setUint32(536, 0x0010_0001, true);
  page.set(new TextEncoder().encode(subsystemOfImage(image.sha256)), 768);
  // A capsule of an I/O queue is a command of 4 times 16 bytes without data; an answer is 16 bytes.
  view.setUint32(1792, 4, true);
  view.setUint32(1796, 1, true);
  page[1803] = 1;
  return page;
}

export function identifyNamespace(image: NamedImage): Uint8Array {
  const page = new Uint8Array(PAGE_BYTES);
  const view = viewOf(page);
  for (const at of [0, 8, 16]) view.setBigUint64(at, BigInt(sectorsOf(image)), true);
  // Write protected.
  page[99] = 1;
  // NGUID: after a lost connection a host goes on only with what is the same image.
  page.set(Uint8Array.fromHex(image.sha256.slice(0, 32)), 104);
  page[130] = Math.log2(SECTOR_BYTES);
  return page;
}

/** The namespaces with a number above `after`. */
export function namespaceList(after: number): Uint8Array {
  const page = new Uint8Array(PAGE_BYTES);
  if (after < NAMESPACE) viewOf(page).setUint32(0, NAMESPACE, true);
  return page;
}

/** A file that is no whole number of sectors ends within the last one, which reads as zeros from there. */
export function sectorsOf({ lengthBytes }: NamedImage): number {
  return Math.ceil(lengthBytes / SECTOR_BYTES);
}

/** CAP: queues of that size in one piece, 10 s to get ready, the command set of disks. */
export const CAPABILITIES = BigInt(QUEUE_SIZE_MAX - 1) | (1n << 16n) | (20n << 24n) | (1n << 37n);

/** ASCII, filled with blanks. */
function setText(page: Uint8Array, at: number, lengthBytes: number, text: string): void {
  page.set(new TextEncoder().encode(text.padEnd(lengthBytes).slice(0, lengthBytes)), at);
}
