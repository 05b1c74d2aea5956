/** The image that nodes with little memory read from `serve`, by a host of NVMe over TCP on real sockets. Linux itself is the host in test/vm/memory.test.ts. */
import { describe, expect, test } from "bun:test";
import { renameSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { imageOfSubsystem, subsystemOfImage } from "../../src/boot/image-name.ts";
import { ImageFiles } from "../../src/server/nvme/image-files.ts";
import { ImageListener, type ImageListenerOptions } from "../../src/server/nvme/listener.ts";
import {
  capsule,
  connectCommand,
  greeting,
  type HostCommand,
  NvmeHost,
  pdu,
  readCommand,
} from "../harness/nvme-host.ts";
import { randomBytes } from "../harness/image.ts";
import { seededRandom } from "../harness/random.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { mutate } from "../fuzz/mutate.ts";

const IMAGE = randomBytes(1_000_448, 7);
const SECTORS = IMAGE.length / 512;
const NO_SUCH = `nqn.2026-11.diskswarm:image:${"0".repeat(64)}`;
/** Status codes of the base specification, with the bit that says not to try again. */
const NEVER = 0x4000;

function nameOf(image: Uint8Array): string {
  return `nqn.2026-11.diskswarm:image:${new Bun.CryptoHasher("sha256").update(image).digest("hex")}`;
}
const NAME = nameOf(IMAGE);

interface Served {
  readonly port: number;
  readonly path: string;
  readonly listener: ImageListener;
  /** What it said of hosts and of the file. */
  readonly told: string[];
}

function serve(scope: Scope, options: Partial<ImageListenerOptions> = {}, image = IMAGE): Served {
  const path = join(scope.tempDir(), "root.squashfs");
  writeFileSync(path, image);
  const told: string[] = [];
  const tell = (line: string) => void told.push(line);
  const images = new ImageFiles(path, tell);
  const listener = new ImageListener({ listen: "127.0.0.1", port: 0, portMayChange: false, images, tell, ...options });
  scope.defer(() => listener.stop());
  return { port: listener.port, path, listener, told };
}

async function host(scope: Scope, port: number, bytewise = false): Promise<NvmeHost> {
  const found = await NvmeHost.open(port, bytewise);
  scope.defer(() => found.end());
  return found;
}

/** Both queues of a host. */
async function attached(scope: Scope, port: number, name = NAME, bytewise = false) {
  const admin = await host(scope, port, bytewise);
  const controller = await admin.administer(name);
  const reader = await host(scope, port, bytewise);
  await reader.join(name, controller);
  return { admin, reader, controller };
}

async function readAll(reader: NvmeHost, sectors: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let sector = 0; sector < sectors; sector += 256) {
    const { status, data } = await reader.read(sector, Math.min(256, sectors - sector));
    expect(status).toBe(0);
    parts.push(data);
  }
  return Buffer.concat(parts);
}

for (const bytewise of [false, true])
  scopedTest(`what is read is the image, ${bytewise ? "byte for byte sent" : "whole PDUs sent"}`, async (scope) => {
    const { port, listener } = serve(scope);
    const { admin, reader, controller } = await attached(scope, port, NAME, bytewise);
    expect(Buffer.compare(await readAll(reader, SECTORS), IMAGE)).toBe(0);
    const page = { dataBytes: 4096 };
    const about = await admin.command({ opcode: 0x06, words: [0x01], ...page });
    expect([about.data.length, about.data.readUInt16LE(78), about.data.readUInt32LE(80)]).toEqual([
      ...[4096, controller, 0x10201],
    ]);
    expect(about.data.toString("latin1", 768, 768 + NAME.length)).toBe(NAME);
    const space = await admin.command({ opcode: 0x06, namespace: 1, words: [0x00], ...page });
    expect([Number(space.data.readBigUInt64LE(0)), space.data[99], space.data[130]]).toEqual([SECTORS, 1, 9]);
    expect(space.data.toHex().slice(208, 240)).toBe(NAME.slice(-64, -32));
    const list = await admin.command({ opcode: 0x06, namespace: 0, words: [0x02], ...page });
    expect([list.data.readUInt32LE(0), list.data.readUInt32LE(4)]).toEqual([1, 0]);
    expect(listener.hosts).toBe(1);
  });

scopedTest("a last sector that is not whole ends in zeros", async (scope) => {
  const image = IMAGE.subarray(0, 1000);
  const { port } = serve(scope, {}, image);
  const { reader } = await attached(scope, port, nameOf(image));
  const { data } = await reader.read(0, 2);
  expect(data).toEqual(Buffer.concat([image, Buffer.alloc(24)]));
});

scopedTest("what a disk that is only read cannot do is answered, and it goes on", async (scope) => {
  const { port } = serve(scope);
  const { admin, reader } = await attached(scope, port);
  const onReader: [string, HostCommand, number][] = [
    ["beyond the end", readCommand(SECTORS - 1, 2), NEVER | 0x80],
    ["far beyond", { ...readCommand(0, 1), words: [0xffffffff, 0xffffffff, 0] }, NEVER | 0x80],
    ["more than fits", readCommand(0, 257), NEVER | 0x02],
    ["other room than data", readCommand(0, 2, 512), NEVER | 0x0f],
    ["another namespace", { ...readCommand(0, 1), namespace: 2 }, NEVER | 0x0b],
    ["a write", { opcode: 0x01, namespace: 1, words: [0, 0, 0], dataBytes: 512 }, NEVER | 0x01],
    ["zeroing", { opcode: 0x08, namespace: 1, words: [0, 0, 0] }, NEVER | 0x01],
    ["data in a capsule", { ...readCommand(0, 1), data: new Uint8Array(512) }, NEVER | 0x02],
    ["a property on this queue", { opcode: 0x7f, namespace: 4, words: [0, 0x08] }, NEVER | 0x0c],
  ];
  for (const [what, command, status] of onReader)
    expect([what, (await reader.command(command)).status]).toEqual([what, status]);
  const onAdmin: [string, HostCommand, number][] = [
    ["a log page", { opcode: 0x02, words: [0], dataBytes: 512 }, NEVER | 0x01],
    ["firmware", { opcode: 0x11, dataBytes: 4096 }, NEVER | 0x01],
    ["a page that there is not", { opcode: 0x06, words: [0x06], dataBytes: 4096 }, NEVER | 0x02],
    ["too little room", { opcode: 0x06, words: [0x01], dataBytes: 512 }, NEVER | 0x0f],
    ["a namespace that there is not", { opcode: 0x06, namespace: 9, words: [0], dataBytes: 4096 }, NEVER | 0x0b],
    ["a feature that there is not", { opcode: 0x09, words: [0x10] }, NEVER | 0x02],
    ["a register that there is not", { opcode: 0x7f, namespace: 4, words: [0, 0x40] }, NEVER | 0x02],
    ["setting a register that is read", { opcode: 0x7f, namespace: 0, words: [0, 0x08, 1] }, NEVER | 0x02],
    ["Keep Alive", { opcode: 0x18 }, 0],
  ];
  for (const [what, command, status] of onAdmin)
    expect([what, (await admin.command(command)).status]).toEqual([what, status]);
  expect((await admin.command({ opcode: 0x09, words: [0x07, 0x0003_0003] })).result).toBe(0x0003_0003n);
  // An event that never comes is waited for, and holds nothing up.
  await admin.send(capsule(900, { opcode: 0x0c }));
  expect((await admin.command({ opcode: 0x18 })).status).toBe(0);
  expect((await reader.read(3, 1)).data).toEqual(Buffer.from(IMAGE.subarray(3 * 512, 4 * 512)));
});

scopedTest("only the image with that hash is given, to the host that asked for it", async (scope) => {
  const { port, listener } = serve(scope);
  const admin = await host(scope, port);
  await admin.greet();
  for (const name of [NO_SUCH, "nqn.2014-08.org.nvmexpress.discovery", `${NAME}0`, ""])
    expect([name, await admin.connectQueue(0, name)]).toEqual([
      name,
      { status: NEVER | 0x182, result: 0x1_0100n, data: Buffer.alloc(0) },
    ]);
  expect((await admin.connectQueue(0, NAME, 5)).status).toBe(NEVER | 0x182);
  expect(listener.hosts).toBe(0);
  const { status, result } = await admin.connectQueue(0, NAME);
  expect(status).toBe(0);
  const reader = await host(scope, port);
  await reader.greet();
  // Not before it is enabled, not another's, and not one that there is not.
  expect((await reader.connectQueue(1, NAME, Number(result))).status).toBe(NEVER | 0x182);
  await admin.command({ opcode: 0x7f, namespace: 0, words: [0, 0x14, 1, 0] });
  expect((await reader.connectQueue(1, NAME, Number(result), "nqn.test:other")).status).toBe(NEVER | 0x182);
  expect((await reader.connectQueue(1, NAME, Number(result) + 1)).status).toBe(NEVER | 0x182);
  expect((await reader.connectQueue(1, NAME, Number(result))).status).toBe(0);
});

scopedTest("nodes keep the image that they began with when the folder is built anew", async (scope) => {
  const { port, path, listener } = serve(scope);
  const old = await attached(scope, port);
  const image = randomBytes(4096, 8);
  writeFileSync(`${path}.new`, image);
  renameSync(`${path}.new`, path);
  const fresh = await attached(scope, port, nameOf(image));
  expect(Buffer.compare(await readAll(fresh.reader, 8), image)).toBe(0);
  expect(Buffer.compare(await readAll(old.reader, SECTORS), IMAGE)).toBe(0);
  // As after a cable was out.
  old.admin.end();
  old.reader.end();
  const again = await attached(scope, port);
  expect(Buffer.compare(await readAll(again.reader, SECTORS), IMAGE)).toBe(0);
  expect(await (await listener.handle("/boot/root.nvme"))!.text()).toBe(`${port} 4096\n`);
});

scopedTest("a file that is cut short is told, and reads end with an error", async (scope) => {
  const { port, path, told } = serve(scope);
  const { reader } = await attached(scope, port);
  truncateSync(path, 1024);
  expect((await reader.read(0, 2)).status).toBe(0);
  expect((await reader.read(4, 1)).status).toBe(NEVER | 0x281);
  expect(told).toEqual([`cannot read ${path}: it ends before byte 2560 now`]);
});

scopedTest("where there is no image, nothing is offered", async (scope) => {
  const images = new ImageFiles(join(scope.tempDir(), "root.squashfs"), () => undefined);
  const { listener, port } = serve(scope, { images });
  expect((await listener.handle("/boot/root.nvme"))!.status).toBe(404);
  expect(listener.handle("/boot/root.squashfs")).toBe(null);
  const admin = await host(scope, port);
  await admin.greet();
  expect((await admin.connectQueue(0, NAME)).status).toBe(NEVER | 0x182);
});

describe("whoever breaks the protocol is let go", () => {
  const BROKEN: [string, Buffer][] = [
    ["HTTP", Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")],
    ["a command first", capsule(1, readCommand(0, 1))],
    ["another version", greeting(1)],
    ["a PDU of a target", pdu(0x07, 24, 24)],
    ["data that nobody asked for", pdu(0x06, 24, 4096)],
    ["a header that is too long", pdu(0x00, 255, 255)],
    ["a length that is too short", pdu(0x00, 128, 128).fill(0, 4, 8)],
    ["a length of 4 GiB", pdu(0x04, 72, 72).fill(0xff, 4, 8)],
    ["the end", pdu(0x02, 24, 24)],
  ];
  for (const [what, bytes] of BROKEN)
    scopedTest(what, async (scope) => {
      const { port, told } = serve(scope);
      const one = await host(scope, port);
      await one.send(bytes);
      await one.closed();
      expect(told.length).toBe(1);
    });
  scopedTest("after the greeting", async (scope) => {
    const { port, told } = serve(scope);
    for (const bytes of [
      greeting(),
      capsule(1, readCommand(0, 1)),
      Buffer.from(capsule(1, { opcode: 0x18 })).fill(1, 1, 2),
    ]) {
      const one = await host(scope, port);
      await one.greet();
      await one.send(bytes);
      await one.closed();
    }
    expect(told.length).toBe(3);
  });
  scopedTest("by asking for more than a queue holds", async (scope) => {
    const { port, told, listener } = serve(scope);
    const { reader, admin } = await attached(scope, port);
    reader.socket.pause();
    for (let id = 1; id <= 2000 && told.length === 0; id++) {
      await reader.send(capsule(id, readCommand(0, 256)));
      if (id % 100 === 0) await Bun.sleep(10);
    }
    expect(told).toEqual([expect.stringMatching(/more than its queue holds/)]);
    // The other queue has done nothing.
    expect((await admin.command({ opcode: 0x18 })).status).toBe(0);
    expect(listener.hosts).toBe(1);
  });
});

describe("who says nothing", () => {
  scopedTest("is let go before Connect, however slowly it goes on", async (scope) => {
    const { port, told } = serve(scope, { limits: { connectMsMax: 100, sweepMs: 20 } });
    const slow = await host(scope, port);
    const timer = setInterval(() => slow.socket.write(Uint8Array.of(0)), 20);
    await slow.closed();
    clearInterval(timer);
    expect(told).toEqual([expect.stringMatching(/does not say what it wants/)]);
  });
  scopedTest("is let go as an admin queue, and its readers with it; these alone may be silent", async (scope) => {
    // Long enough for a busy machine to come as far as that.
    const { port, told, listener } = serve(scope, { limits: { silenceMsMax: 3_000, sweepMs: 20 } });
    const { admin, reader } = await attached(scope, port);
    await admin.closed();
    await reader.closed();
    expect(told).toEqual([expect.stringMatching(/it is silent/)]);
    expect(listener.hosts).toBe(0);
  });
  scopedTest("is let go where it takes no answer", async (scope) => {
    const { port, told } = serve(scope, { limits: { answerMsMax: 100, sweepMs: 20 } });
    const { reader } = await attached(scope, port);
    reader.socket.pause();
    // More than the buffers of two sockets hold, and less than its queue does.
    for (let id = 1; id <= 120; id++) await reader.send(capsule(id, readCommand(0, 256)));
    while (told.length === 0) await Bun.sleep(10);
    expect(told).toEqual([expect.stringMatching(/takes no answer/)]);
  });
});

scopedTest("too many connections: the last has to come again", async (scope) => {
  const { port, told, listener } = serve(scope, { limits: { connectionsMax: 2 } });
  const { admin } = await attached(scope, port);
  const third = await host(scope, port);
  await third.closed();
  expect(told).toEqual([expect.stringMatching(/too many connections/)]);
  admin.end();
  while (listener.hosts > 0) await Bun.sleep(5);
  await attached(scope, port);
});

scopedTest("a port that is taken: another one, unless it was asked for", async (scope) => {
  const { port } = serve(scope);
  const second = serve(scope, { port, portMayChange: true });
  expect(second.port).not.toBe(port);
  await attached(scope, second.port);
  expect(() => serve(scope, { port })).toThrow(/cannot be bound.*--nvme PORT/);
});

scopedTest("whatever is sent, it answers others", async (scope) => {
  const { port } = serve(scope);
  const random = seededRandom(4420);
  const valid = Buffer.concat([
    greeting(),
    capsule(1, connectCommand(0, NAME, 0xffff, "nqn.test:fuzz")),
    capsule(2, { opcode: 0x7f, namespace: 0, words: [0, 0x14, 1, 0] }),
    capsule(3, { opcode: 0x06, words: [0x01], dataBytes: 4096 }),
    capsule(4, { opcode: 0x09, words: [0x07, 0] }),
  ]);
  for (let round = 0; round < 300; round++) {
    const one = await NvmeHost.open(port);
    await one.send(mutate(random, valid));
    one.socket.end();
    await one.closed();
  }
  const { reader } = await attached(scope, port);
  expect(Buffer.compare(await readAll(reader, SECTORS), IMAGE)).toBe(0);
});

test("names", () => {
  const sha256 = NAME.slice(-64);
  expect([subsystemOfImage(sha256), imageOfSubsystem(NAME)]).toEqual([NAME, sha256]);
  for (const name of ["", NAME.slice(0, -64), NAME.toUpperCase(), `${NAME} `, `x${NAME}`])
    expect([name, imageOfSubsystem(name)]).toEqual([name, null]);
});
