/**
 * What machines boot from: `/boot/*` is a folder that `diskswarm initramfs` wrote (with whatever boot loaders the admin
 * put beside it), `/boot.ipxe` is the script that has iPXE load it, with this server named as the client named it.
 *
 * Files are looked up at each request, so a folder may be built anew while it is served. iPXE, GRUB, UEFI firmware and
 * busybox's wget ask for HEAD and for ranges, each in its own way.
 */
import { existsSync, type Stats, statSync } from "node:fs";
import { join } from "node:path";
import { ExitCode, Failure } from "../errors.ts";
import { hostOf } from "./host.ts";

const SCRIPT_PATH = "/boot.ipxe";
const FOLDER_PATH = "/boot/";
/** Of names in the folder: nothing hidden, nothing that climbs, nothing that has to be quoted. */
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}$/;
const DEPTH_MAX = 6;
const TEXT = { "Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store" };
/** Screen and serial line at once, and no more than warnings of the kernel on them: a slow line slows the boot. */
const CONSOLE_ARGUMENTS = "console=ttyS0,115200 console=tty0 loglevel=4";
/**
 * For machines with little memory. The kernel lets what it unpacks take half of what the packed file leaves: too little
 * with 192 MB. And the files by which it can be traced, which no node opens, are 9 MB: kernels before 6.6 make them all.
 */
const MEMORY_ARGUMENTS = ["rootfstype=ramfs", "initcall_blacklist=tracer_init_tracefs"];

export class BootFiles {
  /** `extraArguments`: words for the kernel's command line. Throws a Failure where the folder has nothing to boot. */
  constructor(
    private readonly folder: string,
    private readonly extraArguments: string | null,
  ) {
    for (const name of ["vmlinuz", "initrd.img"])
      if (!existsSync(join(folder, name)))
        throw new Failure(
          ExitCode.failed,
          "boot-folder",
          `${join(folder, name)} does not exist: write it with diskswarm initramfs -o ${folder}`,
        );
  }

  /** Answers `/boot.ipxe` and `/boot/...`; null for any other path. */
  handle(path: string, request: Request): Response | null {
    if (path !== SCRIPT_PATH && !path.startsWith(FOLDER_PATH)) return null;
    if (request.method !== "GET" && request.method !== "HEAD")
      return new Response("only GET and HEAD are answered here\n", {
        status: 405,
        headers: { ...TEXT, Allow: "GET, HEAD" },
      });
    return path === SCRIPT_PATH ? this.#script(request) : this.#file(path.slice(FOLDER_PATH.length), request);
  }

  /** netX is the card that iPXE itself came by; `initrd=` is how a kernel finds it under UEFI. */
  #script(request: Request): Response {
    const host = hostOf(request);
    if (host === null)
      return new Response("the Host header does not name this server\n", { status: 400, headers: TEXT });
    const server = `http://${host}`;
    const words = [
      `diskswarm.server=${server}`,
      "ip=dhcp",
      "BOOTIF=01-${netX/mac:hexhyp}",
      ...MEMORY_ARGUMENTS,
      CONSOLE_ARGUMENTS,
    ];
    const lines = [
      "#!ipxe",
      `kernel ${server}/boot/vmlinuz initrd=initrd.img ${words.join(" ")} ${this.extraArguments ?? ""}`.trimEnd(),
      `initrd --name initrd.img ${server}/boot/initrd.img`,
      "boot",
    ];
    return new Response(`${lines.join("\n")}\n`, { headers: { ...TEXT, Vary: "Host" } });
  }

  #file(name: string, request: Request): Response {
    const path = this.#pathOf(name);
    const stat = path === null ? null : fileStat(path);
    if (path === null || stat === null) return new Response("no such file to boot\n", { status: 404, headers: TEXT });
    const tag = `"${stat.size.toString(16)}-${Math.round(stat.mtimeMs).toString(16)}"`;
    const headers = {
      "Content-Type": "application/octet-stream",
      "Accept-Ranges": "bytes",
      "Cache-Control": "no-cache",
      ETag: tag,
    };
    const range = wantedRange(request, tag, stat.size);
    if (range === "none")
      return new Response(null, { status: 416, headers: { ...headers, "Content-Range": `bytes */${stat.size}` } });
    if (range === "all") return new Response(Bun.file(path), { headers });
    const [start, end] = range;
    return new Response(Bun.file(path).slice(start, end), {
      status: 206,
      headers: { ...headers, "Content-Range": `bytes ${start}-${end - 1}/${stat.size}` },
    });
  }

  #pathOf(name: string): string | null {
    const parts = name.split("/");
    return parts.length <= DEPTH_MAX && parts.every((part) => NAME.test(part)) ? join(this.folder, ...parts) : null;
  }
}

function fileStat(path: string): Stats | null {
  try {
    const stat = statSync(path);
    return stat.isFile() ? stat : null;
  } catch {
    // A link that leads nowhere, a file named as a folder, a folder that was taken away: nothing to boot.
    return null;
  }
}

/**
 * The bytes that a request wants, from the first to before the last: all, none that there are (416), or a range. Of
 * several ranges, of units that are not bytes and of a range of an older file, the whole is what RFC 9110 allows.
 */
function wantedRange(request: Request, tag: string, lengthBytes: number): "all" | "none" | [number, number] {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(request.headers.get("Range")?.trim() ?? "");
  const condition = request.headers.get("If-Range");
  if (match === null || (condition !== null && condition !== tag)) return "all";
  const [, first, last] = match;
  if (first === "" && last === "") return "all";
  if (first === "") {
    const start = Math.max(0, lengthBytes - Number(last));
    return start < lengthBytes ? [start, lengthBytes] : "none";
  }
  const start = Number(first);
  const end = last === "" ? lengthBytes : Math.min(Number(last) + 1, lengthBytes);
  if (last !== "" && Number(last) < start) return "all";
  return start < lengthBytes ? [start, end] : "none";
}
