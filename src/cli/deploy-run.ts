/**
 * One deployment, from a torrent that was read to the proof on the disk: what `deploy` does when it has read its
 * options and its torrent. It tells what happens through `output`.
 */
import { statSync } from "node:fs";
import { ExitCode, Failure } from "../errors.ts";
import { canRewriteTable, checkFit, type FitOptions, fitTarget } from "../fit/fit.ts";
import { loadPersonality } from "../fit/load-personality.ts";
import type { PeerEvent, PeerHandle } from "../peer/api.ts";
import { startPeer } from "../peer/handle.ts";
import { requireSignature } from "../torrent/signature.ts";
import type { Metainfo } from "../torrent/types.ts";
import { formatBytes, parseSize } from "../units.ts";
import type { DeployValues } from "./deploy.ts";
import { Discovery } from "./discovery.ts";
import { readPublicKey } from "./key-files.ts";
import { peakRssBytes } from "./memory.ts";
import type { Done, Output } from "./output.ts";
import { parseHostAndPort, resolvePeers } from "./peer-argument.ts";
import { PeerProgress } from "./peer-progress.ts";
import type { TorrentArgument } from "./torrent-argument.ts";
import { metainfoOfInfo, verifyAfter } from "./verify-after.ts";

export interface DeployRequest {
  readonly torrent: TorrentArgument;
  readonly target: string;
  readonly options: DeployValues;
  /** Of the buffer pool. */
  readonly memoryBytes: number;
  /** Another port than the one asked for is a failure, not a matter of chance. */
  readonly portWasGiven: boolean;
  readonly output: Output;
  /** Before the proof it interrupts; after it, it ends the lingering. */
  readonly signal: AbortSignal;
}

export class DeployRun {
  private readonly progress: PeerProgress;
  private peer!: PeerHandle;
  private discovery: Discovery | null = null;
  /** The proof is there and was told. */
  private isDone = false;
  /** Reads the target again; its failure is the deployment's. */
  private verification: Promise<void> | null = null;
  /** Raw info bytes that came from the swarm. */
  private infoBytes: Uint8Array | null = null;

  constructor(private readonly request: DeployRequest) {
    this.progress = new PeerProgress(request.output);
  }

  async run(): Promise<ExitCode> {
    const { torrent, target, options, memoryBytes, portWasGiven, output, signal } = this.request;
    await this.checkSignature();
    const named = torrent.peers.map((text) => parseHostAndPort(text)!);
    const peers = await resolvePeers([...options.peer, ...named], output);
    if (signal.aborted) return ExitCode.interrupted;
    const fit = await this.readFitOptions();
    this.peer = startPeer(
      {
        role: "deploy",
        trusted: options.key !== null,
        torrent: torrent.file?.bytes ?? { infoHash: torrent.infoHash, name: torrent.name },
        path: target,
        force: options.force,
        fit: { canRewriteTable: canRewriteTable(), convertSectors: options.convertSectors },
        listen: options.listen,
        port: options.port,
        portMayChange: !portWasGiven,
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
      await this.fit(fit);
      return ExitCode.done;
    } finally {
      signal.removeEventListener("abort", stop);
      await this.discovery?.stop();
    }
  }

  /** Before anything is opened: a torrent that is not trusted must not touch the target. */
  private async checkSignature(): Promise<void> {
    const { torrent, options } = this.request;
    if (options.key === null) return;
    const publicKey = readPublicKey(options.key);
    if (torrent.file !== null) return requireSignature(torrent.file.metainfo, publicKey);
    const problem = "a magnet link carries no signature, and a trusted key was given";
    throw new Failure(
      ExitCode.integrity,
      "unsigned",
      `${problem}: deploy the .torrent or its URL; nothing was written`,
    );
  }

  /** What will be done after the proof, and whether it can be: the user hears of it before anything is written. */
  private async readFitOptions(): Promise<FitOptions> {
    const { torrent, target, options, signal } = this.request;
    const { convertSectors, grow, newUuids, personalize } = options;
    const personality =
      personalize === null ? null : await loadPersonality(personalize, { timeoutMs: options.timeout, signal });
    const fit = { convertSectors, grow, newUuids, personality };
    const found = statSync(target, { throwIfNoEntry: false });
    const isFile = found === undefined ? options.force : !found.isBlockDevice();
    checkFit(fit, isFile, torrent.file?.metainfo ?? null);
    return fit;
  }

  /**
   * At the very end, since it changes what a lingering node serves. A signal ends the lingering and not this: it
   * takes seconds, and half of it would be a disk that is neither the image nor ready.
   */
  private async fit(options: FitOptions): Promise<void> {
    const { target, output } = this.request;
    await fitTarget(target, this.metainfo, options, {
      warning: (code, message) => output.warning(code, message),
      debug: (message) => output.log("debug", message),
      done: (event, fields, text) => {
        output.event(event, fields);
        output.line(text);
      },
    });
  }

  private get metainfo(): Metainfo {
    return this.request.torrent.file?.metainfo ?? metainfoOfInfo(this.infoBytes!);
  }

  private hear(event: PeerEvent): void {
    const { output } = this.request;
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
        if (!this.request.options.verify) return this.done(event, false);
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
    const { output, options, target } = this.request;
    const { file, infoHash, name, trackers, isPrivate } = this.request.torrent;
    const bytesTotal = file?.metainfo.extents.totalBytes ?? null;
    const size = bytesTotal === null ? "" : ` (${formatBytes(bytesTotal)})`;
    output.start(`${name ?? infoHash.toHex()}${size} to ${target}`, {
      command: "deploy",
      name,
      infoHash: infoHash.toHex(),
      target,
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
    const { target, output, signal, options } = this.request;
    const { io, direct, key } = options;
    const what = { metainfo: this.metainfo, trusted: key !== null, target, tail: event.tail };
    if (await verifyAfter({ ...what, io, direct, output, signal })) this.done(event, true);
  }

  private done({ stats, seconds, sources }: Extract<PeerEvent, { type: "done" }>, verified: boolean): void {
    const { bytesTotal, bytesFetched, bytesReceived, bytesReused } = stats;
    this.isDone = true;
    const done: Done = {
      bytesTotal,
      bytesFetched,
      bytesReceived,
      bytesReused,
      seconds,
      peakRssBytes: peakRssBytes(),
      flushed: true,
      verified,
      sources,
    };
    this.request.output.done(done, this.request.target);
  }
}
