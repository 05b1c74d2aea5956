/** `serve`: everything that a fleet needs on the admin's machine in one command: capture, tracker, seeder, HTTP. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExitCode } from "../errors.ts";
import type { PeerStats } from "../peer/api.ts";
import { AFTER_ACTIONS } from "../boot/init/command-line.ts";
import { parseTargetRule } from "../boot/init/target-rule.ts";
import { BootFiles } from "../server/boot-files.ts";
import type { FleetEvent } from "../server/fleet.ts";
import { type Server, startServer } from "../server/http.ts";
import { ImageFiles } from "../server/nvme/image-files.ts";
import type { ImageListenerOptions } from "../server/nvme/listener.ts";
import { urlPath } from "../server/torrents.ts";
import { withoutSource } from "../torrent/create.ts";
import { ServerBeacon } from "../tracker/server-beacon.ts";
import { formatBytes } from "../units.ts";
import { type Context, defineCommand } from "./command.ts";
import { compressOption, memoryOption, poolBytes } from "./memory.ts";
import { nodeOptionWords } from "./node-options.ts";
import { choice, duration, flag, type OptionTable, port, repeated, text, value } from "./options.ts";
import type { Output } from "./output.ts";
import { isLoopback, listenOption } from "./peer-argument.ts";
import { PeerProgress } from "./peer-progress.ts";
import { localHosts, reachableHosts } from "./reachable.ts";
import { Seeding } from "./seeding.ts";
import { prepareImage, type ServedImage } from "./served-image.ts";

const OPTIONS = {
  listen: listenOption(),
  http: port("TCP port of the tracker and of /torrents/", 6969),
  udp: port("UDP port of the tracker", 6969),
  port: port(
    "TCP port of the first image's seeder, the others take the next ones; if it was not asked for, free ones",
    6881,
  ),
  check: flag("hash each source before it is served"),
  memory: memoryOption(),
  compress: compressOption(),
  io: choice(["auto", "uring", "epoll"], "how to talk to the kernel", "auto"),
  direct: choice(["auto", "on", "off"], "read past the page cache (O_DIRECT)", "auto"),
  target: value({
    placeholder: "RULE",
    help: "the disk that nodes write (see init --help); their own command line wins",
    expected: "a target rule such as auto, /dev/sda or model=Samsung*,size>=200G (see diskswarm init --help)",
    parse: (word) => (typeof parseTargetRule(word) === "string" ? null : word),
  }),
  after: choice(AFTER_ACTIONS, "what nodes do when their disk is proven; their own command line wins"),
  nodeOption: repeated(
    value({
      placeholder: "NAME=VALUE",
      help: "an option of deploy for the nodes, such as memory=32M",
      expected: "NAME=VALUE with the name of an option of deploy",
      parse: parseNodeOption,
    }),
  ),
  boot: text("DIR", "a folder that initramfs wrote, served as /boot/ with the script /boot.ipxe for iPXE"),
  bootArgs: value({
    placeholder: "WORDS",
    help: "added to the kernel's command line in /boot.ipxe",
    expected: "words of printable ASCII",
    parse: (words) => (/^[\x20-\x7e]+$/.test(words) ? words : null),
  }),
  nvme: port(
    "TCP port at which nodes with little memory read the root.squashfs of --boot; if it was not asked for and is taken, a free one",
    4420,
  ),
  timeout: duration("how long a torrent's URL that does not answer is asked again", "60s"),
} satisfies OptionTable;

type ServeContext = Context<typeof OPTIONS>;

export const serve = defineCommand({
  name: "serve",
  arguments: "<...images>",
  summary: "tracker, seeder and HTTP server in one: all that a fleet needs",
  details: `
An image is a disk, partition, raw image or virtual disk (qcow2, VMDK, VHDX, VDI, VHD), which is captured
first; a torrent that was captured before; or TORRENT=SOURCE where the torrent's source is neither where
it was captured nor beside it.
What to type on a node is printed. Serving goes on until it is interrupted (Ctrl-C), which ends it
with exit code 130.`,
  options: OPTIONS,
  examples: ["diskswarm serve classroom.raw", "diskswarm serve classroom.torrent=/dev/sdb lab.torrent --http 8080"],
  exitCodes: [
    ExitCode.failed,
    ExitCode.usage,
    ExitCode.integrity,
    ExitCode.refused,
    ExitCode.nothingToFetch,
    ExitCode.interrupted,
  ],
  async run(context) {
    const folder = mkdtempSync(join(tmpdir(), "diskswarm-serve-"));
    try {
      return await runServe(context, folder);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
});

async function runServe(context: ServeContext, folder: string): Promise<ExitCode> {
  const { options, output, signal } = context;
  // Looked at before the images are, which may take an hour.
  const memoryBytes = poolBytes(options.memory);
  const nodeOptions = Object.fromEntries(options.nodeOption);
  nodeOptionWords(nodeOptions, "--node-option");
  const boot = options.boot === null ? null : new BootFiles(options.boot, options.bootArgs);
  const images: ServedImage[] = [];
  try {
    for (const word of context.arguments) {
      const image = await prepareImage(word, folder, { timeoutMs: options.timeout, signal, output });
      if (!image) return ExitCode.interrupted;
      images.push(image);
    }
    return await serveImages(context, images, { memoryBytes, nodeOptions, boot });
  } finally {
    for (const { source } of images) await source.close();
  }
}

interface ServeSetup {
  readonly memoryBytes: number;
  readonly nodeOptions: Record<string, string>;
  readonly boot: BootFiles | null;
}

async function serveImages(
  context: ServeContext,
  images: readonly ServedImage[],
  { memoryBytes, nodeOptions, boot }: ServeSetup,
): Promise<ExitCode> {
  const { options, output } = context;
  const server = await startServer({
    listen: options.listen,
    httpPort: options.http,
    udpPort: options.udp,
    torrents: images.map(({ torrent: { bytes, metainfo } }) => ({
      name: metainfo.name,
      bytes: new Uint8Array(withoutSource(bytes)),
      metainfo,
    })),
    plan: { target: options.target, after: options.after, options: nodeOptions },
    boot,
    nodeImages: nodeImages(context),
    onNodeEvent: (event) => tellNode(output, event),
  });
  const beacon = await startBeacon(context, server);
  try {
    await seedAll(context, images, server, memoryBytes);
  } finally {
    beacon?.stop();
    await server.stop();
  }
  return ExitCode.interrupted;
}

/** Lets nodes with little memory read the boot folder's image, in place of fetching it. Null where no node boots from here. */
function nodeImages({ options, given, output }: ServeContext): ImageListenerOptions | null {
  if (options.boot === null) return null;
  return {
    listen: options.listen,
    port: options.nvme,
    portMayChange: !given.has("nvme"),
    images: new ImageFiles(join(options.boot, "root.squashfs"), (problem) => output.log("warning", problem)),
    tell: (line) => output.log("debug", line),
  };
}

/** Answers nodes that know no server, unless this one is for its own machine. */
async function startBeacon({ options, output }: ServeContext, server: Server): Promise<ServerBeacon | null> {
  const { listen } = options;
  if (isLoopback(listen)) return null;
  const isWildcard = listen === null || listen === "0.0.0.0" || listen === "::";
  const beacon = new ServerBeacon({
    httpPort: server.httpPort,
    hosts: isWildcard ? undefined : [listen],
    onWarning: (message) => output.log("debug", message),
  });
  await beacon.start();
  return beacon;
}

/** A line for each node that ended, well or not; everything as an event. */
function tellNode(output: Output, { id, phase, message, code, target, timeMs: _timeMs, ...rest }: FleetEvent): void {
  output.event("node", { id, phase, message, code, target, ...rest });
  // What is wrong with a disk that is done (it will not boot) has a code, too.
  if (code !== undefined) output.log("warning", `node ${id}: ${message ?? code}`);
  else if (phase === "done") output.line(`node ${id}: done, ${target ?? "its disk"} is proven`);
}

function parseNodeOption(word: string): readonly [string, string] | null {
  const match = /^([a-z][a-z-]*)=(.*)$/s.exec(word);
  return match === null ? null : [match[1]!, match[2]!];
}

/** Seeds until the signal; the first seeder that fails ends it all. */
async function seedAll(
  context: ServeContext,
  images: readonly ServedImage[],
  server: Server,
  memoryBytes: number,
): Promise<void> {
  const { output, signal } = context;
  const progress = new PeerProgress(output);
  const seedings: Seeding[] = [];
  const showSum = (stats: PeerStats) => {
    if (stats.phase === "check") progress.show(stats);
    else progress.showServing(sumOf(seedings.map((seeding) => seeding.stats)));
  };
  const stopAll = () => {
    for (const seeding of seedings) seeding.stop();
  };
  for (const [index, image] of images.entries())
    seedings.push(startSeeding(context, image, index, server, memoryBytes, showSum));
  if (signal.aborted) stopAll();
  signal.addEventListener("abort", stopAll);
  const allFinished = Promise.all(seedings.map((seeding) => seeding.finished));
  try {
    const allListening = Promise.all(seedings.map((seeding) => seeding.listening));
    await Promise.race([
      allListening.then((events) =>
        tellStart(
          context,
          images,
          server,
          events.map((event) => event.port),
        ),
      ),
      allFinished,
    ]);
    await allFinished;
  } catch (error) {
    stopAll();
    await Promise.allSettled(seedings.map((seeding) => seeding.finished));
    throw error;
  } finally {
    signal.removeEventListener("abort", stopAll);
  }
}

function startSeeding(
  { options, given, output }: ServeContext,
  image: ServedImage,
  index: number,
  server: Server,
  memoryBytes: number,
  onProgress: (stats: PeerStats) => void,
): Seeding {
  return new Seeding({
    ...image,
    listen: options.listen,
    port: options.port === 0 ? 0 : options.port + index,
    portMayChange: !given.has("port"),
    peers: [],
    trackers: localHosts(options.listen).map((host) => `http://${host}:${server.httpPort}/announce`),
    memoryBytes,
    io: options.io,
    direct: options.direct,
    compress: options.compress === "auto",
    check: options.check,
    timeoutMs: options.timeout,
    output,
    onProgress,
  });
}

function sumOf(all: readonly PeerStats[]): PeerStats {
  const sum = (count: (stats: PeerStats) => number) => all.reduce((total, stats) => total + count(stats), 0);
  return {
    ...all[0]!,
    phase: "serve",
    bytesTotal: sum((stats) => stats.bytesTotal),
    bytesUploaded: sum((stats) => stats.bytesUploaded),
    bytesSent: sum((stats) => stats.bytesSent),
    peers: sum((stats) => stats.peers),
  };
}

/** The very line to type on a node, for each image. */
function tellStart(
  { options, output }: ServeContext,
  images: readonly ServedImage[],
  server: Server,
  ports: readonly number[],
): void {
  const bases = reachableHosts(options.listen).map((host) => `http://${host}:${server.httpPort}`);
  const base = bases[0]!;
  const described = images.map(({ torrent: { metainfo }, sourcePath }, index) => ({
    name: metainfo.name,
    infoHash: metainfo.infoHash.toHex(),
    bytesTotal: metainfo.extents.totalBytes,
    source: sourcePath,
    url: `${base}${urlPath(metainfo.name)}`,
    port: ports[index],
  }));
  const lines = described.map(
    (image) =>
      `serving ${image.name} (${formatBytes(image.bytesTotal)}) from ${image.source}; on each node run:\n\n  diskswarm deploy ${image.url} /dev/TARGET\n`,
  );
  if (options.boot !== null) lines.push(`Machines boot from ${base}/boot.ipxe`);
  if (bases.length > 1) lines.push(`This machine also answers at ${bases.slice(1).join(", ")}`);
  output.start(lines.join("\n"), {
    command: "serve",
    server: base,
    servers: bases,
    tracker: `${base}/announce`,
    httpPort: server.httpPort,
    udpPort: server.udpPort,
    boot: options.boot === null ? null : `${base}/boot.ipxe`,
    nvmePort: server.nvmePort,
    images: described,
  });
}
