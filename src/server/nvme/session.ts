/**
 * One connection of a host: what is answered to each PDU. The first connection of a host is its admin queue and makes a
 * controller, the others are queues for reading and belong to it (NVM Express over Fabrics 1.1, NVM Express 1.4).
 *
 * Commands are answered one after the other, so a connection holds no more than one read. Whatever a target that is
 * only read need not have is answered as not supported, which hosts get by with. It has no clock and no socket.
 */
import { imageOfSubsystem } from "../../boot/image-name.ts";
import { assert } from "../../errors.ts";
import {
  CAPABILITIES,
  identifyController,
  identifyNamespace,
  NAMESPACE,
  namespaceList,
  type NamedImage,
  PAGE_BYTES,
  QUEUE_SIZE_MAX,
  READ_BYTES_MAX,
  SECTOR_BYTES,
  sectorsOf,
  VERSION,
} from "./identify.ts";
import { DATA_HEADER_BYTES, encodeData, encodeIcResp, encodeResponse, type Pdu, viewOf } from "./pdu.ts";

export interface ReadableImage extends NamedImage {
  /** Fills `into` with what stands from `offsetBytes` on, all within the image. False: it cannot be read. */
  read(into: Uint8Array, offsetBytes: number): Promise<boolean>;
}

/** The image with that SHA-256, or null. */
export type FindImage = (sha256: string) => Promise<ReadableImage | null>;

/** What is to be sent, nothing for a command that is never answered; or why the connection ends. */
export type Answer = readonly Uint8Array[] | { readonly end: string };

interface Controller {
  readonly id: number;
  readonly image: ReadableImage;
  readonly host: string;
  isEnabled: boolean;
  isShutDown: boolean;
}

/** The controllers of all hosts. */
export class Controllers {
  readonly #all = new Map<number, Controller>();
  #lastId = 0;

  constructor(
    readonly find: FindImage,
    private readonly controllersMax: number,
  ) {}

  get size(): number {
    return this.#all.size;
  }

  /** Null where there are too many. */
  add(image: ReadableImage, host: string): Controller | null {
    if (this.#all.size >= this.controllersMax) return null;
    do this.#lastId = (this.#lastId % CONTROLLER_ID_MAX) + 1;
    while (this.#all.has(this.#lastId));
    const controller = { id: this.#lastId, image, host, isEnabled: false, isShutDown: false };
    this.#all.set(controller.id, controller);
    return controller;
  }

  get(id: number): Controller | undefined {
    return this.#all.get(id);
  }

  remove(id: number): void {
    this.#all.delete(id);
  }
}

const CONTROLLER_ID_MAX = 0xffef;
const ANY_CONTROLLER = 0xffff;

/** Status code types and codes; nothing here gets better by trying again. */
const DO_NOT_RETRY = 0x4000;
const Status = {
  success: 0,
  invalidOpcode: DO_NOT_RETRY | 0x01,
  invalidField: DO_NOT_RETRY | 0x02,
  invalidNamespace: DO_NOT_RETRY | 0x0b,
  invalidLength: DO_NOT_RETRY | 0x0f,
  sequence: DO_NOT_RETRY | 0x0c,
  outOfRange: DO_NOT_RETRY | 0x80,
  /** There is room again when another host has gone. */
  busy: 0x181,
  invalidConnect: DO_NOT_RETRY | 0x182,
  unreadable: DO_NOT_RETRY | 0x281,
} as const;

const FABRICS = 0x7f;
const Fabrics = { propertySet: 0x00, connect: 0x01, propertyGet: 0x04 } as const;
const Admin = { identify: 0x06, abort: 0x08, setFeatures: 0x09, asyncEvent: 0x0c, keepAlive: 0x18 } as const;
const READ = 0x02;
const Property = { capabilities: 0x00, version: 0x08, configuration: 0x14, status: 0x1c } as const;
const Feature = { queueCount: 0x07, asyncEvents: 0x0b, keepAlive: 0x0f } as const;
const CONNECT_DATA_BYTES = 1024;
const CONTROLLER_AT = 16;
const SUBSYSTEM_AT = 256;
const HOST_AT = 512;
const NAME_BYTES_MAX = 223;
/** What of Connect is wrong: the place in its data, which bit 16 says is meant. */
const inData = (at: number) => BigInt(0x1_0000 | at);

export class NvmeSession {
  #controller: Controller | null = null;
  #isGreeted = false;
  #queueId = -1;
  #queueSize = 1;
  #queueHead = 0;

  constructor(private readonly controllers: Controllers) {}

  /** Of whose controller this is a queue; null before it is connected. */
  get controllerId(): number | null {
    return this.#controller?.id ?? null;
  }

  get isAdmin(): boolean {
    return this.#queueId === 0;
  }

  async answer(pdu: Pdu): Promise<Answer> {
    if (pdu.type === "end") return { end: "the host ended it" };
    if (pdu.type === "connect") {
      if (this.#isGreeted) return { end: "a second greeting" };
      if (pdu.version !== 0 || DATA_HEADER_BYTES % pdu.alignmentBytes !== 0)
        return { end: `version ${pdu.version} with an alignment of ${pdu.alignmentBytes} bytes` };
      this.#isGreeted = true;
      return [encodeIcResp()];
    }
    if (!this.#isGreeted) return { end: "a command before the greeting" };
    const command = new Command(pdu.command);
    this.#queueHead = (this.#queueHead + 1) % this.#queueSize;
    if (this.#controller === null) return this.#connect(command, pdu.data);
    if (pdu.data.length > 0) return this.#reply(command, Status.invalidField);
    if (command.opcode === FABRICS)
      return this.isAdmin ? this.#property(command) : this.#reply(command, Status.sequence);
    return this.isAdmin ? this.#administer(command) : this.#read(command);
  }

  /** The connection is gone. */
  end(): void {
    if (this.isAdmin && this.#controller !== null) this.controllers.remove(this.#controller.id);
  }

  async #connect(command: Command, data: Uint8Array): Promise<Answer> {
    if (command.opcode !== FABRICS || command.fabricsType !== Fabrics.connect)
      return { end: "a command before Connect" };
    if (data.length !== CONNECT_DATA_BYTES) return this.#reply(command, Status.invalidField);
    const queueId = command.u16(42);
    const queueSize = command.u16(44) + 1;
    const host = textOf(data, HOST_AT);
    const name = textOf(data, SUBSYSTEM_AT);
    const controllerId = viewOf(data).getUint16(CONTROLLER_AT, true);
    if (command.u16(40) !== 0 || queueSize < 2 || queueSize > QUEUE_SIZE_MAX)
      return this.#reply(command, Status.invalidConnect);
    const sha256 = imageOfSubsystem(name);
    const image = sha256 === null ? null : await this.controllers.find(sha256);
    if (image === null) return this.#reply(command, Status.invalidConnect, inData(SUBSYSTEM_AT));
    if (queueId === 0) {
      if (controllerId !== ANY_CONTROLLER) return this.#reply(command, Status.invalidConnect, inData(CONTROLLER_AT));
      const made = this.controllers.add(image, host);
      return made === null ? this.#reply(command, Status.busy) : this.#take(command, made, queueId, queueSize);
    }
    const known = this.controllers.get(controllerId);
    return known?.isEnabled && known.host === host && known.image.sha256 === sha256
      ? this.#take(command, known, queueId, queueSize)
      : this.#reply(command, Status.invalidConnect, inData(CONTROLLER_AT));
  }

  /** From here on this is a queue of that controller. */
  #take(command: Command, controller: Controller, queueId: number, queueSize: number): Answer {
    this.#controller = controller;
    this.#queueId = queueId;
    this.#queueSize = queueSize;
    return this.#reply(command, Status.success, BigInt(controller.id));
  }

  #property(command: Command): Answer {
    const controller = this.#own();
    const at = command.u32(44);
    if (command.fabricsType === Fabrics.propertySet) {
      if (at !== Property.configuration) return this.#reply(command, Status.invalidField);
      const wanted = command.u32(48);
      controller.isEnabled = (wanted & 1) !== 0;
      controller.isShutDown = ((wanted >> 14) & 3) !== 0;
      return this.#reply(command, Status.success);
    }
    if (command.fabricsType !== Fabrics.propertyGet) return this.#reply(command, Status.invalidField);
    const { isEnabled, isShutDown } = controller;
    const value: Record<number, bigint> = {
      [Property.capabilities]: CAPABILITIES,
      [Property.version]: BigInt(VERSION),
      // What hosts set beside enabling it: entries of queues have 64 and 16 bytes.
      [Property.configuration]: isEnabled ? 0x46_0001n : 0n,
      [Property.status]: BigInt((isEnabled ? 1 : 0) | (isShutDown ? 2 << 2 : 0)),
    };
    const found = value[at];
    return found === undefined
      ? this.#reply(command, Status.invalidField)
      : this.#reply(command, Status.success, found);
  }

  #administer(command: Command): Answer {
    switch (command.opcode) {
      case Admin.identify:
        return this.#identify(command);
      case Admin.setFeatures:
        return this.#setFeature(command);
      case Admin.keepAlive:
        return this.#reply(command, Status.success);
      // Nothing ever happens that it would tell of.
      case Admin.asyncEvent:
        return [];
      // It was not stopped: it is answered already.
      case Admin.abort:
        return this.#reply(command, Status.success, 1n);
      default:
        return this.#reply(command, Status.invalidOpcode);
    }
  }

  #identify(command: Command): Answer {
    const { image, id } = this.#own();
    const what = command.u32(40) & 0xff;
    if (what === 0x01) return this.#send(command, identifyController(image, id));
    if (what === 0x02) return this.#send(command, namespaceList(command.namespace));
    if (what !== 0x00) return this.#reply(command, Status.invalidField);
    return command.namespace === NAMESPACE
      ? this.#send(command, identifyNamespace(image))
      : this.#reply(command, Status.invalidNamespace);
  }

  #setFeature(command: Command): Answer {
    switch (command.u32(40) & 0xff) {
      // Asked and answered less one, for both kinds of queues: as many as it wants, each of them is a connection.
      case Feature.queueCount:
        return this.#reply(command, Status.success, BigInt(command.u32(44)));
      case Feature.asyncEvents:
      case Feature.keepAlive:
        return this.#reply(command, Status.success);
      default:
        return this.#reply(command, Status.invalidField);
    }
  }

  async #read(command: Command): Promise<Answer> {
    const { image } = this.#own();
    if (command.opcode !== READ) return this.#reply(command, Status.invalidOpcode);
    if (command.namespace !== NAMESPACE) return this.#reply(command, Status.invalidNamespace);
    const first = command.u64(40);
    const count = command.u16(48) + 1;
    if (first + BigInt(count) > BigInt(sectorsOf(image))) return this.#reply(command, Status.outOfRange);
    const lengthBytes = count * SECTOR_BYTES;
    if (lengthBytes > READ_BYTES_MAX) return this.#reply(command, Status.invalidField);
    if (lengthBytes !== command.dataBytes) return this.#reply(command, Status.invalidLength);
    const bytes = encodeData(command.id, lengthBytes);
    const offsetBytes = Number(first) * SECTOR_BYTES;
    const there = Math.min(lengthBytes, image.lengthBytes - offsetBytes);
    const isRead = await image.read(bytes.subarray(DATA_HEADER_BYTES, DATA_HEADER_BYTES + there), offsetBytes);
    return isRead ? [bytes, ...this.#reply(command, Status.success)] : this.#reply(command, Status.unreadable);
  }

  /** A page, and that it was all. */
  #send(command: Command, page: Uint8Array): Answer {
    if (command.dataBytes !== PAGE_BYTES) return this.#reply(command, Status.invalidLength);
    const bytes = encodeData(command.id, page.length);
    bytes.set(page, DATA_HEADER_BYTES);
    return [bytes, ...this.#reply(command, Status.success)];
  }

  #reply({ id }: Command, status: number, result = 0n): readonly Uint8Array[] {
    const queueId = Math.max(this.#queueId, 0);
    return [encodeResponse({ id, queueHead: this.#queueHead, queueId, status, result })];
  }

  #own(): Controller {
    assert(this.#controller !== null, "a command is looked at after Connect");
    return this.#controller;
  }
}

/** A submission queue entry. */
class Command {
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#view = viewOf(bytes);
  }

  get opcode(): number {
    return this.#view.getUint8(0);
  }

  get id(): number {
    return this.u16(2);
  }

  get fabricsType(): number {
    return this.#view.getUint8(4);
  }

  get namespace(): number {
    return this.u32(4);
  }

  /** How much data the host has room for, or sends. */
  get dataBytes(): number {
    return this.u32(32);
  }

  u16(at: number): number {
    return this.#view.getUint16(at, true);
  }

  u32(at: number): number {
    return this.#view.getUint32(at, true);
  }

  u64(at: number): bigint {
    return this.#view.getBigUint64(at, true);
  }
}

/** A name of Connect's data, up to its first zero. */
function textOf(data: Uint8Array, at: number): string {
  const bytes = data.subarray(at, at + NAME_BYTES_MAX);
  const end = bytes.indexOf(0);
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString("latin1");
}
