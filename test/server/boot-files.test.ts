/** What machines boot from `serve --boot`, on real sockets. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BootFiles } from "../../src/server/boot-files.ts";
import { type Server, startServer } from "../../src/server/http.ts";

const folder = mkdtempSync(join(tmpdir(), "dstest-boot-"));
/** Longer than any buffer on its way, and every byte tells where it is. */
const kernel = Uint8Array.from({ length: 3_000_001 }, (_, i) => (i * 31 + (i >> 8)) & 255);
let server: Server;
let base: string;

beforeAll(async () => {
  writeFileSync(join(folder, "vmlinuz"), kernel);
  writeFileSync(join(folder, "initrd.img"), "initrd");
  writeFileSync(join(folder, ".hidden"), "x");
  mkdirSync(join(folder, "grub/x86_64-efi"), { recursive: true });
  writeFileSync(join(folder, "grub/x86_64-efi/net.mod"), "module");
  symlinkSync("vmlinuz", join(folder, "linux"));
  server = await startServer({
    ...{ listen: "127.0.0.1", httpPort: 0, udpPort: 0, torrents: [] },
    ...{ plan: { target: null, after: null, options: {} }, onNodeEvent: () => undefined },
    boot: new BootFiles(folder, "diskswarm.target=auto"),
    nodeImages: null,
  });
  base = `http://127.0.0.1:${server.httpPort}`;
});
afterAll(async () => {
  await server.stop();
  rmSync(folder, { recursive: true });
});

async function bytesOf(response: Response): Promise<Uint8Array> {
  return new Uint8Array(await response.arrayBuffer());
}

test("a file comes whole, byte for byte, also from a subfolder and by a link", async () => {
  const response = await fetch(`${base}/boot/vmlinuz`);
  expect(response.status).toBe(200);
  expect(response.headers.get("Content-Length")).toBe(String(kernel.length));
  expect(Buffer.compare(await bytesOf(response), kernel)).toBe(0);
  expect(await (await fetch(`${base}/boot/grub/x86_64-efi/net.mod`)).text()).toBe("module");
  expect((await bytesOf(await fetch(`${base}/boot/linux`))).length).toBe(kernel.length);
});

test("HEAD says the length and that ranges are answered", async () => {
  const response = await fetch(`${base}/boot/vmlinuz`, { method: "HEAD" });
  expect([response.status, response.headers.get("Content-Length"), response.headers.get("Accept-Ranges")]).toEqual([
    200,
    String(kernel.length),
    "bytes",
  ]);
});

test("ranges as clients write them", async () => {
  const tag = (await fetch(`${base}/boot/vmlinuz`, { method: "HEAD" })).headers.get("ETag")!;
  const cases: [string, Record<string, string>, number, number, number][] = [
    ["bytes=0-0", {}, 206, 0, 1],
    ["bytes=1000000-", {}, 206, 1_000_000, kernel.length],
    ["bytes=2999999-9999999", {}, 206, 2_999_999, kernel.length],
    ["bytes=-17", {}, 206, kernel.length - 17, kernel.length],
    ["bytes=-99999999", {}, 206, 0, kernel.length],
    ["bytes=5-9", { "If-Range": tag }, 206, 5, 10],
    // What it had begun with is not there any more: all of it anew.
    ["bytes=5-9", { "If-Range": '"another"' }, 200, 0, kernel.length],
    ["bytes=9-5", {}, 200, 0, kernel.length],
    ["bytes=0-1,5-6", {}, 200, 0, kernel.length],
    ["lines=1-2", {}, 200, 0, kernel.length],
    ["bytes=-", {}, 200, 0, kernel.length],
  ];
  for (const [range, headers, status, start, end] of cases) {
    const response = await fetch(`${base}/boot/vmlinuz`, { headers: { Range: range, ...headers } });
    const bytes = await bytesOf(response);
    expect([range, response.status, bytes.length]).toEqual([range, status, end - start]);
    expect(Buffer.compare(bytes, kernel.subarray(start, end))).toBe(0);
    if (status === 206)
      expect(response.headers.get("Content-Range")).toBe(`bytes ${start}-${end - 1}/${kernel.length}`);
  }
});

test("a range beyond the end is 416 with the length", async () => {
  for (const range of [`bytes=${kernel.length}-`, "bytes=999999999-", "bytes=-0"]) {
    const response = await fetch(`${base}/boot/vmlinuz`, { headers: { Range: range } });
    expect([range, response.status]).toEqual([range, 416]);
    expect(response.headers.get("Content-Range")).toBe(`bytes */${kernel.length}`);
  }
});

test("nothing hidden, nothing outside, no folders", async () => {
  for (const path of [
    ...["", ".hidden", "..%2f..%2fetc%2fpasswd", "%2e%2e/x", "grub", "grub/", "/etc/passwd", "grub//x", "none"],
    ...["a/b/c/d/e/f/vmlinuz", "vmlinuz/x", "vmlinuz%00"],
  ]) {
    const response = await fetch(`${base}/boot/${path}`);
    expect([path, response.status]).toEqual([path, 404]);
  }
  expect((await fetch(`${base}/boot/vmlinuz`, { method: "PUT", body: "x" })).status).toBe(405);
});

test("a folder that is built anew is served anew", async () => {
  const tag = (await fetch(`${base}/boot/initrd.img`)).headers.get("ETag");
  writeFileSync(join(folder, "initrd.img"), "another initrd");
  const response = await fetch(`${base}/boot/initrd.img`);
  expect(response.headers.get("ETag")).not.toBe(tag);
  expect(await response.text()).toBe("another initrd");
});

test("the script for iPXE names this server as it was asked", async () => {
  const text = await (await fetch(`${base}/boot.ipxe`, { headers: { Host: "imaging.lan:6969" } })).text();
  expect(text.split("\n")[0]).toBe("#!ipxe");
  expect(text).toContain("\nkernel http://imaging.lan:6969/boot/vmlinuz initrd=initrd.img ");
  expect(text).toContain(" diskswarm.server=http://imaging.lan:6969 ip=dhcp BOOTIF=01-${netX/mac:hexhyp} ");
  expect(text).toContain(" diskswarm.target=auto\n");
  expect(text).toContain("\ninitrd --name initrd.img http://imaging.lan:6969/boot/initrd.img\nboot\n");
});

test("a folder without a kernel is refused with what to do", () => {
  expect(() => new BootFiles(tmpdir(), null)).toThrow(/vmlinuz does not exist: write it with diskswarm initramfs -o/);
});
