/** `seed`: serves an image to nodes from the disk, partition or file that it was captured from. */
import { ExitCode } from "../errors.ts";
import { formatBytes } from "../units.ts";
import { defineCommand } from "./command.ts";
import { compressOption, memoryOption, poolBytes } from "./memory.ts";
import { choice, duration, flag, port, repeated, trackerUrl } from "./options.ts";
import { listenOption, peerOption, resolvePeers } from "./peer-argument.ts";
import { PeerProgress } from "./peer-progress.ts";
import { Seeding } from "./seeding.ts";
import { openSeedSource } from "./seed-source.ts";
import { loadTorrentFile } from "./torrent-argument.ts";

export const seed = defineCommand({
  name: "seed",
  arguments: "<torrent> <source>",
  summary: "serve an image from the disk or file it was captured from",
  details: `
The source is a disk, a partition, a raw image or a virtual disk (qcow2, VMDK, VHDX, VDI, VHD), and must not
have changed since the capture; --check reads all of it first. Seeding goes on
until it is interrupted (Ctrl-C), which ends it with exit code 130.`,
  options: {
    listen: listenOption(),
    port: port("TCP port to listen on; if it is taken and was not asked for, a free one", 6881),
    tracker: repeated(trackerUrl("announce to this tracker as well")),
    peer: peerOption("connect to this peer as well"),
    check: flag("hash the whole source before it is served"),
    memory: memoryOption(),
    compress: compressOption(),
    io: choice(["auto", "uring", "epoll"], "how to talk to the kernel", "auto"),
    direct: choice(["auto", "on", "off"], "read past the page cache (O_DIRECT)", "auto"),
    timeout: duration("how long a torrent's URL that does not answer is asked again", "60s"),
  },
  examples: [
    "diskswarm seed classroom.torrent /dev/sdb --tracker http://10.0.0.1:6969/announce",
    "diskswarm seed classroom.torrent classroom.raw --port 7000 --check",
  ],
  exitCodes: [ExitCode.failed, ExitCode.usage, ExitCode.integrity, ExitCode.nothingToFetch, ExitCode.interrupted],
  async run({ arguments: words, options, given, output, signal }) {
    const memoryBytes = poolBytes(options.memory);
    const torrent = await loadTorrentFile(words[0]!, { timeoutMs: options.timeout, signal, output });
    const peers = await resolvePeers(options.peer, output);
    const source = await openSeedSource(words[1]!, torrent.metainfo, signal);
    if (source === null) return ExitCode.interrupted;
    const progress = new PeerProgress(output);
    const seeding = new Seeding({
      torrent,
      source,
      listen: options.listen,
      port: options.port,
      portMayChange: !given.has("port"),
      peers,
      trackers: options.tracker,
      memoryBytes,
      io: options.io,
      direct: options.direct,
      compress: options.compress === "auto",
      check: options.check,
      timeoutMs: options.timeout,
      output,
      onProgress: (stats) => progress.show(stats),
    });
    const stop = () => seeding.stop();
    signal.addEventListener("abort", stop);
    try {
      await Promise.race([seeding.listening.then(announceStart), seeding.finished]);
      await seeding.finished;
      return ExitCode.interrupted;
    } finally {
      signal.removeEventListener("abort", stop);
      await source.close();
    }

    function announceStart(event: { port: number; backend: string }): void {
      const { metainfo } = torrent;
      const bytesTotal = metainfo.extents.totalBytes;
      output.start(`seeding ${metainfo.name} (${formatBytes(bytesTotal)}) from ${words[1]} on port ${event.port}`, {
        command: "seed",
        name: metainfo.name,
        infoHash: metainfo.infoHash.toHex(),
        source: words[1],
        bytesTotal,
        port: event.port,
        io: event.backend,
      });
    }
  },
});
