/**
 * `demo`: a whole deployment on this machine, with the very commands that a fleet runs: one `serve` and some
 * `deploy` as child processes on the loopback interface, writing to files. Needs no privileges.
 */
import { existsSync, mkdtempSync, rmSync, statfsSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExitCode, Failure, usageError } from "../errors.ts";
import { formatBytes, formatRate } from "../units.ts";
import { ChildProgram, type ProgramEvent } from "./child-program.ts";
import { type Context, defineCommand } from "./command.ts";
import { firstDifference, makeDemoImage } from "./demo-image.ts";
import { type OptionTable, size, text, value } from "./options.ts";
import { progressText, secondsText } from "./output.ts";

const NODES_MAX = 16;
const LOOPBACK = "127.0.0.1";
/** All of them run on one machine here; a fleet's nodes have theirs for themselves. */
const MEMORY = ["--memory", "64M"];

const OPTIONS = {
  dir: text("DIR", "where the image and the copies of it go for the time being (default: the temporary folder)"),
  size: size("bytes of the image that is made where none is given", "512M"),
  nodes: value(
    { placeholder: "N", help: "machines to deploy to", expected: `a number from 1 to ${NODES_MAX}`, parse: parseNodes },
    3,
  ),
} satisfies OptionTable;

export const demo = defineCommand({
  name: "demo",
  arguments: "[image]",
  summary: "a whole deployment on this machine, without privileges",
  details: `
Makes an image (or takes yours), serves it, deploys it to three files at once as if each were a
machine's disk, and compares every byte. Everything it made is removed at the end.`,
  options: OPTIONS,
  examples: ["diskswarm demo", "diskswarm demo debian-12.raw --dir /var/tmp --nodes 5"],
  exitCodes: [ExitCode.done, ExitCode.failed, ExitCode.usage, ExitCode.integrity, ExitCode.interrupted],
  async run(context) {
    const parent = context.options.dir ?? tmpdir();
    if (!existsSync(parent)) throw usageError(`the folder ${parent} (--dir) does not exist`);
    const given = context.arguments[0] ?? null;
    const imageBytes = given === null ? context.options.size : sizeOfImage(given);
    checkSpace(parent, imageBytes * (context.options.nodes + (given === null ? 1 : 0)));
    const folder = mkdtempSync(join(parent, "diskswarm-demo-"));
    const run = new DemoRun(context, folder, given ?? join(folder, "image.raw"), imageBytes);
    try {
      return await run.run(given === null);
    } finally {
      await run.end();
      rmSync(folder, { recursive: true, force: true });
    }
  },
});

function parseNodes(word: string): number | null {
  const count = /^\d{1,2}$/.test(word) ? Number(word) : 0;
  return count >= 1 && count <= NODES_MAX ? count : null;
}

function sizeOfImage(path: string): number {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat?.isFile()) throw usageError(`${path} is not an image file`);
  return stat.size;
}

function checkSpace(folder: string, neededBytes: number): void {
  const { bavail, bsize } = statfsSync(folder);
  const freeBytes = bavail * bsize;
  if (freeBytes >= neededBytes) return;
  const detail = `${formatBytes(neededBytes)} are needed in ${folder} but ${formatBytes(freeBytes)} are free`;
  throw new Failure(
    ExitCode.failed,
    "no-space",
    `${detail}: choose another folder (--dir) or a smaller image (--size)`,
  );
}

/** What is known of one node. */
interface Node {
  readonly name: string;
  readonly target: string;
  program: ChildProgram | null;
  status: string;
  /** Its `done` event. */
  done: ProgramEvent | null;
}

class DemoRun {
  private server: ChildProgram | null = null;
  private readonly nodes: Node[];
  private nextStatusMs = 0;

  constructor(
    private readonly context: Context<typeof OPTIONS>,
    folder: string,
    private readonly image: string,
    private readonly imageBytes: number,
  ) {
    this.nodes = Array.from({ length: context.options.nodes }, (_, index) => ({
      name: `node ${index + 1}`,
      target: join(folder, `node-${index + 1}.raw`),
      program: null,
      status: "starting",
      done: null,
    }));
  }

  async run(makesImage: boolean): Promise<ExitCode> {
    const { signal, output } = this.context;
    const what = `${this.image} (${formatBytes(this.imageBytes)}) to ${this.nodes.length} nodes`;
    output.start(`Deploying ${what}, all on this machine`, {
      command: "demo",
      image: this.image,
      bytesTotal: this.imageBytes,
      nodes: this.nodes.length,
    });
    if (makesImage) output.line("Making the image: each sector carries its own address");
    if (makesImage) await makeDemoImage(this.image, this.imageBytes, signal);
    const startMs = performance.now();
    const aborted = new Promise<null>((resolve) =>
      signal.addEventListener("abort", () => resolve(null), { once: true }),
    );
    if (signal.aborted) return ExitCode.interrupted;
    const finished = this.serve().then((server) => this.deploy(server));
    const serverPort = await Promise.race([finished, aborted]);
    if (serverPort === null) return ExitCode.interrupted;
    const seconds = (performance.now() - startMs) / 1000;
    output.line("Comparing each copy with the image, byte for byte");
    for (const node of this.nodes) await this.compare(node);
    this.tellResult(seconds, serverPort);
    return ExitCode.done;
  }

  /** Ends all children. */
  async end(): Promise<void> {
    await Promise.all([this.stopNodes(), this.server?.stop()]);
  }

  /** Starts the server. Resolves with its `start` event. */
  private serve(): Promise<ProgramEvent> {
    const words = ["serve", this.image, "--listen", LOOPBACK, "--http", "0", "--udp", "0", "--port", "0", ...MEMORY];
    return new Promise((resolve, reject) => {
      const server = new ChildProgram(words, (event) => {
        if (event.event === "start") resolve(event);
      });
      this.server = server;
      const end = (code: number) => reject(failed("the server", server, code));
      server.exited.then(end, reject);
    });
  }

  /** Runs all nodes to their end. Resolves with the port of the server's seeder. */
  private async deploy(server: ProgramEvent): Promise<number> {
    const [image] = server.images as { url: string; port: number }[];
    const { output } = this.context;
    output.line(`Each node runs: diskswarm deploy ${image!.url} TARGET`);
    // A node that is done first helps the others until they are, as it would in a classroom.
    const flags = ["--force", "--listen", LOOPBACK, "--port", "0", "--linger", "swarm", ...MEMORY];
    const runs = this.nodes.map(async (node) => {
      const program = new ChildProgram(["deploy", image!.url, node.target, ...flags], (event) =>
        this.hear(node, event),
      );
      node.program = program;
      const code = await program.exited;
      if (code !== ExitCode.done || !node.done) throw failed(node.name, program, code);
    });
    await Promise.all(runs);
    this.showStatus(true);
    return image!.port;
  }

  private hear(node: Node, event: ProgramEvent): void {
    if (event.event === "progress" && node.done === null) {
      const { bytesDone, bytesTotal, rateBytesPerSecond, etaSeconds, peers, phase } = event as unknown as Parameters<
        typeof progressText
      >[0];
      const progress = { bytesDone, bytesTotal, rateBytesPerSecond, etaSeconds, peers, phase };
      node.status = progressText(progress);
      this.context.output.event("progress", { node: node.name, ...progress });
    } else if (event.event === "done") {
      node.done = event;
      node.status = `100.0%  done and flushed in ${secondsText(Number(event.seconds))}`;
    }
    this.showStatus(false);
    // Nobody needs them any more: they would find out by themselves, a few seconds later.
    if (event.event === "done" && this.nodes.every((one) => one.done)) this.stopNodes();
  }

  private stopNodes(): Promise<unknown> {
    return Promise.all(this.nodes.map((node) => node.program?.stop()));
  }

  private showStatus(isLast: boolean): void {
    const now = performance.now();
    if (now < this.nextStatusMs && !isLast) return;
    this.nextStatusMs = now + this.context.output.statusIntervalMs;
    this.context.output.status(...this.nodes.map((node) => `${node.name}: ${node.status}`));
    if (isLast) this.context.output.close();
  }

  private async compare(node: Node): Promise<void> {
    const difference = await firstDifference(this.image, node.target, this.imageBytes);
    if (difference === null) return;
    const detail = `${node.name} differs from the image at byte ${difference}`;
    throw new Failure(ExitCode.integrity, "copy-differs", `${detail}: this should never happen; please report it`);
  }

  private tellResult(seconds: number, serverPort: number): void {
    const { output } = this.context;
    const results = this.nodes.map((node) => resultOf(node, serverPort));
    const rows = results.map((result) => [
      result.node,
      secondsText(result.seconds),
      formatRate(result.rateBytesPerSecond),
      formatBytes(result.bytesFromServer),
      formatBytes(result.bytesFromNodes),
      formatBytes(result.peakRssBytes),
    ]);
    output.line("");
    output.line(table([["", "time", "rate", "from the server", "from other nodes", "peak memory"], ...rows]));
    output.line("");
    output.line(`All ${this.nodes.length} copies are equal to the image.`);
    output.event("done", { bytesTotal: this.imageBytes, seconds, verified: true, nodes: results });
  }
}

function resultOf(node: Node, serverPort: number) {
  const done = node.done!;
  const sources = done.sources as { peer: string; bytes: number }[];
  const bytesFetched = Number(done.bytesFetched);
  const fromServer = sources.filter((source) => source.peer === `${LOOPBACK}:${serverPort}`);
  const bytesFromServer = fromServer.reduce((total, source) => total + source.bytes, 0);
  return {
    node: node.name,
    seconds: Number(done.seconds),
    rateBytesPerSecond: Math.round(bytesFetched / Math.max(0.001, Number(done.seconds))),
    bytesFromServer,
    bytesFromNodes: Math.max(0, bytesFetched - bytesFromServer),
    peakRssBytes: Number(done.peakRssBytes),
  };
}

function failed(who: string, program: ChildProgram, code: number): Failure {
  return new Failure(
    ExitCode.failed,
    "demo-child",
    `${who} ended with exit code ${code}: ${program.problem ?? "it gave no reason"}`,
  );
}

/** Columns wide enough for their longest cell, numbers to the right. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
        .join("   "),
    )
    .join("\n");
}
