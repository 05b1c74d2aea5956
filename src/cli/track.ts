/** `track`: a tracker by itself, for torrents that were captured elsewhere or fleets with several seeders. */
import { ExitCode, usageError } from "../errors.ts";
import { AllowList } from "../tracker/allow-list.ts";
import { startTracker, type Tracker } from "../tracker/tracker.ts";
import { defineCommand } from "./command.ts";
import { flag, port, repeated, text } from "./options.ts";
import type { Output } from "./output.ts";
import { listenOption } from "./peer-argument.ts";
import { reachableHosts } from "./reachable.ts";

export const track = defineCommand({
  name: "track",
  arguments: "",
  summary: "run a tracker (HTTP and UDP)",
  details: `
Only torrents given with --allow are tracked, unless it is --open. A folder is looked at again every
two seconds: torrents may be added and removed while the tracker runs. It goes on until it is
interrupted (Ctrl-C), which ends it with exit code 130.`,
  options: {
    listen: listenOption(),
    http: port("TCP port of /announce, /scrape and /stats", 6969),
    udp: port("UDP port", 6969),
    allow: repeated(text("TORRENT|DIR", "track this torrent, or every .torrent of this folder")),
    open: flag("track any torrent that a peer announces"),
  },
  examples: ["diskswarm track --allow classroom.torrent", "diskswarm track --allow /srv/torrents --http 8080 --udp 0"],
  exitCodes: [ExitCode.failed, ExitCode.usage, ExitCode.interrupted],
  async run({ options, output, signal }) {
    if (options.allow.length === 0 && !options.open)
      throw usageError("track needs --allow TORRENT|DIR, or --open to track any torrent that is announced");
    const allowList = new AllowList(options.allow, (message) => output.warning("torrent-unusable", message));
    const allowed = allowList.load();
    const tracker = await startTracker({
      listen: options.listen,
      httpPort: options.http,
      udpPort: options.udp,
      open: options.open,
      allowed,
    });
    try {
      tellStart(output, tracker, options, allowed.size);
      allowList.follow((infoHashes) => {
        tracker.setAllowed(infoHashes);
        output.log("info", `tracking ${count(infoHashes.size)}`);
      });
      await aborted(signal);
    } finally {
      allowList.stop();
      await tracker.stop();
    }
    return ExitCode.interrupted;
  },
});

function tellStart(
  output: Output,
  tracker: Tracker,
  options: { listen: string | null; open: boolean },
  allowedCount: number,
): void {
  const hosts = reachableHosts(options.listen);
  const urls = hosts.flatMap((host) => [
    `http://${host}:${tracker.httpPort}/announce`,
    `udp://${host}:${tracker.udpPort}`,
  ]);
  const what = options.open ? "any torrent" : count(allowedCount);
  output.start(`tracking ${what} at ${urls.slice(0, 2).join(" and ")}`, {
    command: "track",
    httpPort: tracker.httpPort,
    udpPort: tracker.udpPort,
    open: options.open,
    torrents: allowedCount,
    trackers: urls,
  });
}

function count(torrents: number): string {
  return torrents === 1 ? "1 torrent" : `${torrents} torrents`;
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
