/**
 * The part of `serve` that nodes and those who watch them talk to: `/v1/plan`, `/v1/nodes`, `/v1/events`
 * (docs/PROTOCOL.md). State is in `fleet.ts`, which has no clock; this has the HTTP around it.
 */
import type { AfterAction } from "../boot/init/command-line.ts";
import { isNodeId, parseNodeReport } from "../boot/init/node-report.ts";
import type { PlanMessage } from "../boot/init/plan.ts";
import { EventStream } from "./event-stream.ts";
import { Fleet, type FleetEvent } from "./fleet.ts";

/** What nodes are told to do with the image. */
export interface PlanDefaults {
  /** A target rule; null leaves it to the node. */
  readonly target: string | null;
  readonly after: AfterAction | null;
  /** Options of the deployment by name. */
  readonly options: Readonly<Record<string, string>>;
}

export interface NodesApiOptions {
  readonly plan: PlanDefaults;
  /** URLs of the torrents that are served, by the name that the request called the server; null where it called it by none. */
  readonly torrentUrls: (request: Request) => string[] | null;
  /** A node reported something. */
  readonly onEvent: (event: FleetEvent) => void;
  readonly now?: () => number;
}

const NO_STORE = { "Cache-Control": "no-store" };
const NODE_EVENTS = /^\/v1\/nodes\/([^/]+)\/events$/;

export class NodesApi {
  readonly #fleet = new Fleet();
  readonly #stream = new EventStream();
  readonly #now: () => number;

  constructor(private readonly options: NodesApiOptions) {
    this.#now = options.now ?? Date.now;
  }

  /** Answers `/v1/...`; null for any other path. */
  handle(path: string, request: Request): Response | Promise<Response> | null {
    if (!path.startsWith("/v1/")) return null;
    const node = NODE_EVENTS.exec(path);
    if (node) return request.method === "POST" ? this.#report(node[1]!, request) : onlyMethod("POST");
    if (path !== "/v1/plan" && path !== "/v1/nodes" && path !== "/v1/events")
      return text(404, "here are /v1/plan, /v1/nodes and /v1/events");
    if (request.method !== "GET") return onlyMethod("GET");
    if (path === "/v1/plan") return this.#plan(request);
    if (path === "/v1/nodes") return this.#nodes();
    return this.#stream.open(this.#fleet.sequence) ?? text(503, "too many watch already, come back later");
  }

  stop(): void {
    this.#stream.stop();
  }

  /** One image: that is the plan. Of several none is chosen by chance. */
  #plan(request: Request): Response {
    const urls = this.options.torrentUrls(request);
    if (urls === null) return text(400, "the request's Host header does not name this server");
    if (urls.length === 0) return text(404, "no image is served here");
    if (urls.length > 1)
      return text(409, `${urls.length} images are served here: choose one with diskswarm.torrent= ${urls.join(" ")}`);
    const { target, after, options } = this.options.plan;
    const message: PlanMessage = {
      version: 1,
      torrent: urls[0]!,
      ...(target === null ? {} : { target }),
      ...(after === null ? {} : { after }),
      ...(Object.keys(options).length === 0 ? {} : { options }),
    };
    return Response.json(message, { headers: NO_STORE });
  }

  #nodes(): Response {
    const iso = (ms: number) => new Date(ms).toISOString();
    const nodes = this.#fleet.nodes().map(({ sinceMs, heardMs, ...node }) => ({
      ...node,
      since: iso(sinceMs),
      heard: iso(heardMs),
    }));
    const body = { sequence: this.#fleet.sequence, counts: this.#fleet.counts(), nodes };
    return Response.json(body, { headers: NO_STORE });
  }

  async #report(word: string, request: Request): Promise<Response> {
    const id = decoded(word).toLowerCase();
    if (!isNodeId(id)) return text(400, "a node's id is its MAC address");
    const report = parseNodeReport(await request.bytes());
    if (report === null) return text(400, "this is no report of a node");
    const event = this.#fleet.report(this.#now(), id, report);
    this.#stream.send(event);
    this.options.onEvent(event);
    return Response.json({ nextSeconds: this.#fleet.reportIntervalSeconds }, { headers: NO_STORE });
  }
}

function decoded(word: string): string {
  try {
    return decodeURIComponent(word);
  } catch (error) {
    // A broken percent escape is the id of nothing.
    if (error instanceof URIError) return "";
    throw error;
  }
}

function onlyMethod(method: string): Response {
  return new Response(`only ${method} is answered here\n`, { status: 405, headers: { Allow: method } });
}

function text(status: number, line: string): Response {
  return new Response(`${line}\n`, { status, headers: { "Content-Type": "text/plain; charset=utf-8", ...NO_STORE } });
}
