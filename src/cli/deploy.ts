/** `deploy`: fetches an image from a swarm and writes it to a disk, with the proof that it is there. */
import { statSync } from "node:fs";
import { ExitCode } from "../errors.ts";
import { moveBackupGpt } from "../image/move-backup-gpt.ts";
import type { PeerEvent, PeerHandle } from "../peer/api.ts";
import { startPeer } from "../peer/handle.ts";
import { formatBytes, parseDuration, parseSize } from "../units.ts";
import { type Context, defineCommand } from "./command.ts";
import { Discovery } from "./discovery.ts";
import { compressOption, memoryOption, peakRssBytes, poolBytes } from "./memory.ts";
import { choice, duration, flag, type OptionTable, port, repeated, trackerUrl, value } from "./options.ts";
import { listenOption, parseHostAndPort, peerOption, resolvePeers } from "./peer-argument.ts";
import { PeerProgress } from "./peer-progress.ts";
import { loadTorrentArgument, type TorrentArgument } from "./torrent-argument.ts";
import { metainfoOfInfo, verifyAfter } from "./verify-after.ts";

const OPTIONS = {
  listen: listenOption(),
  port: port("TCP port to listen on; if it is taken and was not asked for, a free one", 6881),
  tracker: repeated(trackerUrl("announce to this tracker as well")),
  peer: peerOption("fetch from this peer as well"),
  memory: memoryOption(),
  compress: compressOption(),
  io: choice(["auto", "uring", "epoll"], "how to talk to the kernel", "auto"),
  direct: choice(["auto", "on", "off"], "write past the page cache (O_DIRECT)", "auto"),
  blockSize: choice(
    ["16K", "64K", "256K", "1M"],
    "longest block asked of other diskswarm peers; everyone else is asked for 16K",
    "1M",
  ),
  delta: choice(
    ["auto", "always", "never"],
    "keep what the target already holds; auto looks at a few pieces first",
    "auto",
  ),
  linger: value(
    {
      placeholder: "TIME|swarm",
      help: "how long a finished node goes on serving others; swarm: until no connected one still downloads",
      expected: "a duration such as 30s, or swarm",
      parse: (word) => (word === "swarm" ? word : parseDuration(word)),
    },
    0 as number | "swarm",
  ),
  timeout: duration("how long nothing to fetch from is borne", "60s"),
  verify: flag("read the whole target again afterwards and compare the hashes"),
  force: flag("write to an ordinary file, and create it where it is missing"),
} satisfies OptionTable;

type DeployContext = Context<typeof OPTIONS>;

export const deploy = defineCommand({
  name: "deploy",
  arguments: "<torrent> <target>",
  summary: "fetch an image from the swarm and write it to a disk",
  details: `
The torrent is a file, an http(s) URL or a magnet link; the target is a disk or partition, or with
--force a file. The target's content is lost. It is refused before anything is written if it is
mounted, in use or too small. A deployment that was interrupted continues when it is started again.
On a disk that is larger than the image's, sfdisk or sgdisk moves the backup GPT to its end, last of all
(after --linger); verify will name the piece with the table as changed then.`,
  options: OPTIONS,
  examples: [
    "diskswarm deploy http://10.0.0.1:6969/torrents/classroom.torrent /dev/sda",
    "diskswarm deploy classroom.torrent /dev/sda --linger swarm --json",
  ],
  exitCodes: Object.values(ExitCode),
  run: (context) => new DeployRun(context).run(),
});

/** One deployment, from the torrent to the exit code. */
class DeployRun {
  private readonly target: string;
  private readonly progress: PeerProgress;
  private torrent!: TorrentArgument;
  private peer!: PeerHandle;
  private discovery: Discovery | null = null;
  /** The proof is there and was told. */
  private isDone = false;
  /** Reads the target again; its failure is the deployment's. */
  private verification: Promise<void> | null = null;
  /** Raw info bytes that came from the swarm. */
  private infoBytes: Uint8Array | null = null;

  constructor(private readonly context: DeployContext) {
    this.target = context.arguments[1]!;
    this.progress = new PeerProgress(context.output);
  }

  async run(): Promise<ExitCode> {
    const { options, output, signal, arguments: words } = this.context;
    const memoryBytes = poolBytes(options.memory);
    this.torrent = await loadTorrentArgument(words[0]!, { timeoutMs: options.timeout, signal, output });
    const named = this.torrent.peers.map((text) => parseHostAndPort(text)!);
    const peers = await resolvePeers([...options.peer, ...named], output);
    if (signal.aborted) return ExitCode.interrupted;
    this.peer = startPeer(
      {
        role: "deploy",
        torrent: this.torrent.file?.bytes ?? { infoHash: this.torrent.infoHash, name: this.torrent.name },
        path: this.target,
        force: options.force,
        listen: options.listen,
        port: options.port,
        portMayChange: !this.context.given.has("port"),
        peers,
        memoryBytes,
        io: options.io,
        direct: options.direct,
        delta: options.delta,
        check: false,
        lingerMs: options.linger,
        timeoutMs: options.timeout,
        blockBytesMax: parseSize(options.blockSize)!,
        compress: options.compress === "auto",
      },
      (event) => this.hear(event),
    );
    const stop = () => this.peer.stop();
    signal.addEventListener("abort", stop);
    try {
      await this.peer.finished;
      await this.verification;
      if (!this.isDone) return ExitCode.interrupted;
      await this.fitTable();
      return ExitCode.done;
    } finally {
      signal.removeEventListener("abort", stop);
      await this.discovery?.stop();
    }
  }

  /** At the very end, since it changes what a lingering node serves: a larger disk gets its backup GPT at its own end. */
  private async fitTable(): Promise<void> {
    const { output } = this.context;
    if (!statSync(this.target).isBlockDevice()) return;
    const outcome = await moveBackupGpt(this.target);
    if (outcome.type === "left") output.warning("backup-gpt", outcome.problem);
    if (outcome.type !== "moved") return;
    output.event("backup-gpt", { target: this.target, fromBytes: outcome.fromBytes });
    output.line(`${this.target} is larger than the image's disk: its backup GPT was moved to its end`);
  }

  private hear(event: PeerEvent): void {
    const { output } = this.context;
    switch (event.type) {
      case "listening":
        return this.started(event);
      case "metadata":
        this.infoBytes = event.infoBytes;
        if (metainfoOfInfo(event.infoBytes).isPrivate) this.discovery?.leaveNeighbours();
        return output.log("info", `${event.name}: ${formatBytes(event.bytesTotal)}`);
      case "progress":
        // While the target is read again that is what progress is about.
        if (this.verification && !this.isDone) return;
        // A program that reads events has heard the end with `done`; a person may watch the lingering.
        if (this.isDone && output.settings.json) return;
        return this.progress.show(event.stats);
      case "log":
        return event.level === "warning"
          ? output.warning(event.code, event.message)
          : output.log(event.level, event.message);
      case "done":
        this.discovery?.completed();
        if (!this.context.options.verify) return this.done(event, false);
        this.verification = this.verify(event);
        // `run` waits for it after the peer, which must not linger on when this fails.
        this.verification.catch(() => this.peer.stop());
        return;
      case "failed":
        // The promise of the peer rejects with the same and ends the command.
        return;
    }
  }

  private started({ port, backend, note }: Extract<PeerEvent, { type: "listening" }>): void {
    const { output, options } = this.context;
    const { file, infoHash, name, trackers, isPrivate } = this.torrent;
    const bytesTotal = file?.metainfo.extents.totalBytes ?? null;
    const size = bytesTotal === null ? "" : ` (${formatBytes(bytesTotal)})`;
    output.start(`${name ?? infoHash.toHex()}${size} to ${this.target}`, {
      command: "deploy",
      name,
      infoHash: infoHash.toHex(),
      target: this.target,
      bytesTotal,
      port,
      io: backend,
    });
    if (note !== null) output.log("info", note);
    this.discovery = new Discovery({
      infoHash,
      isPrivate,
      listen: options.listen,
      port,
      tiers: trackers,
      trackers: options.tracker,
      peer: this.peer,
      isSeed: false,
      output,
    });
  }

  /** The proof is told when the target was read again. */
  private async verify(event: Extract<PeerEvent, { type: "done" }>): Promise<void> {
    const { output, signal, options } = this.context;
    const metainfo = this.torrent.file?.metainfo ?? metainfoOfInfo(this.infoBytes!);
    const { io, direct } = options;
    if (await verifyAfter({ metainfo, target: this.target, io, direct, output, signal })) this.done(event, true);
  }

  private done({ stats, seconds, sources }: Extract<PeerEvent, { type: "done" }>, verified: boolean): void {
    const { bytesTotal, bytesFetched, bytesReceived, bytesReused } = stats;
    this.isDone = true;
    this.context.output.done(
      {
        bytesTotal,
        bytesFetched,
        bytesReceived,
        bytesReused,
        seconds,
        peakRssBytes: peakRssBytes(),
        flushed: true,
        verified,
        sources,
      },
      this.target,
    );
  }
}
