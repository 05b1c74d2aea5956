/** Asks servers for the plan: the one that was named, or those that DHCP and the link have. */
import { ExitCode, Failure } from "../../errors.ts";
import { PLAN_BYTES_MAX } from "../../limits.ts";
import { searchServers } from "../../tracker/server-beacon.ts";
import { VERSION } from "../../version.ts";
import { SERVER_PORT } from "./command-line.ts";
import type { Machine } from "./machine.ts";
import { type Plan, parsePlan } from "./plan.ts";

export interface ServerPlan {
  /** Origin of the server that answered. */
  readonly server: string;
  readonly plan: Plan;
  /** The plan as it came, to see whether it changed. */
  readonly text: string;
  /** The server's clock, in ms since the epoch; null where it does not tell. */
  readonly dateMs: number | null;
}

const ANSWER_TIMEOUT_MS = 10_000;
const SEARCH_MS = 3_000;

/** Where nobody answered, or nobody has a plan yet: worth trying again. */
export class NoPlan extends Failure {
  override readonly name = "NoPlan";
  constructor(
    message: string,
    /** A server was there; it had no plan. */
    readonly server: string | null = null,
  ) {
    super(ExitCode.nothingToFetch, server === null ? "no-server" : "no-plan", message);
  }
}

/** Asks the server that was named, or whoever can be found. Throws NoPlan, or a Failure for a plan that cannot be used. */
export async function findPlan(named: string | null, machine: Machine, signal: AbortSignal): Promise<ServerPlan> {
  if (named !== null) return askServer(named, machine, signal);
  const problems: string[] = [];
  for (const server of leaseServers(machine)) {
    const answer = await attempt(server, machine, signal);
    if (!(answer instanceof NoPlan)) return answer;
    // A server that has no plan is one all the same: another would not be the one that was meant.
    if (answer.server !== null) throw answer;
    problems.push(answer.message);
  }
  return askLink(machine, problems, signal);
}

/** Servers that DHCP tells of: where the boot file came from by HTTP, and the next server. */
export function leaseServers({ bootFile, nextServer }: Machine): string[] {
  const servers: string[] = [];
  if (bootFile !== null && /^https?:\/\//i.test(bootFile) && URL.canParse(bootFile))
    servers.push(new URL(bootFile).origin);
  if (nextServer !== null) servers.push(serverUrl(nextServer, SERVER_PORT));
  return [...new Set(servers)];
}

function serverUrl(host: string, port: number): string {
  return `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

async function askLink(machine: Machine, problems: string[], signal: AbortSignal): Promise<ServerPlan> {
  const onWarning = (message: string) => void problems.push(message);
  const servers = await searchServers({ durationMs: SEARCH_MS, signal, onWarning });
  if (servers.length > 1) {
    const names = servers.map(([address]) => serverUrl(address!.host, address!.port)).join(", ");
    throw new NoPlan(`several servers answer on this network: name one with diskswarm.server= (${names})`);
  }
  for (const { host, port } of servers[0] ?? []) {
    const answer = await attempt(serverUrl(host, port), machine, signal);
    if (!(answer instanceof NoPlan)) return answer;
    if (answer.server !== null) throw answer;
    problems.push(answer.message);
  }
  const tried = problems.length === 0 ? "" : ` (${problems.join("; ")})`;
  const what = "no server found: DHCP names none that answers, and nobody answers on this network";
  throw new NoPlan(`${what}${tried}; start diskswarm serve, or name it with diskswarm.server=`);
}

async function attempt(server: string, machine: Machine, signal: AbortSignal): Promise<ServerPlan | NoPlan> {
  try {
    return await askServer(server, machine, signal);
  } catch (error) {
    if (error instanceof NoPlan) return error;
    throw error;
  }
}

/** `GET /v1/plan`. */
export async function askServer(server: string, machine: Machine, signal: AbortSignal): Promise<ServerPlan> {
  const query = new URLSearchParams();
  if (machine.mac !== null) query.set("mac", machine.mac);
  if (machine.serial !== null) query.set("serial", machine.serial);
  const timeout = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  let response: Response;
  let bytes: Uint8Array;
  try {
    response = await fetch(`${server}/v1/plan?${query}`, {
      headers: { "User-Agent": `diskswarm/${VERSION}`, Accept: "application/json" },
      signal: AbortSignal.any([signal, timeout]),
      redirect: "error",
    });
    bytes = await readBounded(response);
  } catch (error) {
    if (signal.aborted) throw new Failure(ExitCode.interrupted, "interrupted", "stopped while asking for a plan");
    throw new NoPlan(`${server}: ${timeout.aborted ? "no answer" : reasonOf(error)}`);
  }
  const dateMs = Date.parse(response.headers.get("Date") ?? "");
  if (!response.ok) throw refused(server, response.status, bytes);
  const plan = parsePlan(bytes);
  if (typeof plan === "string")
    throw new Failure(ExitCode.failed, "plan-invalid", `the plan of ${server} cannot be used: ${plan}`);
  const text = new TextDecoder().decode(bytes);
  return { server, plan, text, dateMs: Number.isNaN(dateMs) ? null : dateMs };
}

/** A 404 of something else than diskswarm is no server of ours; its own words are worth showing. */
function refused(server: string, status: number, bytes: Uint8Array): NoPlan {
  const words = new TextDecoder()
    .decode(bytes.subarray(0, 400))
    .replaceAll(/[^\x20-\x7e]+/g, " ")
    .trim();
  return new NoPlan(`${server} has no plan for this machine (${status}${words ? `: ${words}` : ""})`, server);
}

async function readBounded(response: Response): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let lengthBytes = 0;
  for await (const chunk of response.body ?? []) {
    lengthBytes += chunk.length;
    chunks.push(chunk);
    if (lengthBytes > PLAN_BYTES_MAX) break;
  }
  return Buffer.concat(chunks);
}

/** What fetch says, in words that name the cable and not the library. */
export function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "ConnectionRefused" || code === "ECONNREFUSED") return "connection refused";
  if (code === "FailedToOpenSocket" || code === "ENOTFOUND" || code === "ENETUNREACH") return "cannot be reached";
  return message;
}
