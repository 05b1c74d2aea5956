/** `deploy`: fetches an image from a swarm and writes it to a disk, with the proof that it is there. */
import { ExitCode } from "../errors.ts";
import { parseDuration } from "../units.ts";
import { defineCommand } from "./command.ts";
import { DeployRun } from "./deploy-run.ts";
import { compressOption, memoryOption, poolBytes } from "./memory.ts";
import {
  choice,
  duration,
  flag,
  type OptionTable,
  type OptionValues,
  port,
  repeated,
  text,
  trackerUrl,
  value,
} from "./options.ts";
import { listenOption, peerOption } from "./peer-argument.ts";
import { loadTorrentArgument } from "./torrent-argument.ts";

export const DEPLOY_OPTIONS = {
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
  key: text("PUBKEY", "trust only a torrent signed by this key: Base64, or the file that keygen wrote beside the key"),
  verify: flag("read the whole target again afterwards and compare the hashes"),
  grow: flag("on a larger disk, grow the last partition and its filesystem into the free space"),
  convertSectors: flag("convert the GPT for a disk whose sectors have another size, where the filesystems allow it"),
  newUuids: flag("give the disk and its partitions new identifiers (those of filesystems stay)"),
  personalize: text(
    "TABLE",
    "give the installed Linux the host name that a CSV or JSON table (file or URL) has for this machine",
  ),
  force: flag("write to an ordinary file, and create it where it is missing"),
} satisfies OptionTable;

/** What a deployment can be told: by its command line, or by a plan. */
export type DeployValues = OptionValues<typeof DEPLOY_OPTIONS>;

export const deploy = defineCommand({
  name: "deploy",
  arguments: "<torrent> <target>",
  summary: "fetch an image from the swarm and write it to a disk",
  details: `
The torrent is a file, an http(s) URL or a magnet link; the target is a disk or partition, or with
--force a file. The target's content is lost. It is refused before anything is written if it is
mounted, in use or too small. A deployment that was interrupted continues when it is started again.
A disk may be smaller than the image's where all partitions fit; it gets a GPT of its own then, and on a
larger one the backup GPT is moved to the end. That, --grow, --convert-sectors, --new-uuids and --personalize
are done last of all (after --linger); verify will name the pieces as changed then. The table of --personalize
has the columns mac, serial (one of them is enough) and hostname; a machine without a row is not written to.`,
  options: DEPLOY_OPTIONS,
  examples: [
    "diskswarm deploy http://10.0.0.1:6969/torrents/classroom.torrent /dev/sda",
    "diskswarm deploy classroom.torrent /dev/sda --linger swarm --json",
    "diskswarm deploy classroom.torrent /dev/nvme0n1 --grow --personalize http://10.0.0.1/machines.csv",
  ],
  exitCodes: Object.values(ExitCode),
  async run({ arguments: [word, target], options, given, output, signal }) {
    const memoryBytes = poolBytes(options.memory);
    const torrent = await loadTorrentArgument(word!, { timeoutMs: options.timeout, signal, output });
    const portWasGiven = given.has("port");
    return new DeployRun({ torrent, target: target!, options, memoryBytes, portWasGiven, output, signal }).run();
  },
});
