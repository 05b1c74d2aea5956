/**
 * A small network of machines: one namespace per machine, joined by a bridge that lives in a namespace of
 * its own, so that nothing of the host's network is touched and deleting the namespaces removes it all.
 */
import { NAME_PREFIX, isStale, type Scope } from "./scope.ts";
import { Child, run, type SpawnOptions } from "./process.ts";

let networksMade = 0;
let swept = false;

export class Machine {
  constructor(
    readonly namespace: string,
    readonly address: string,
    private readonly hub: string,
    private readonly port: string,
  ) {}

  get prefix(): string[] {
    return ["ip", "netns", "exec", this.namespace];
  }

  spawn(scope: Scope, argv: readonly string[], options: SpawnOptions = {}): Child {
    return new Child(scope, argv, { ...options, prefix: this.prefix });
  }

  /** Runs a command in this machine to its end and returns its output. */
  run(...argv: string[]): string {
    return run(argv, this.prefix);
  }

  /** Limits what this machine sends and receives to `megabits` per second each (tc-tbf(8)). */
  shape(megabits: number): void {
    const limit = ["root", "tbf", "rate", `${megabits}mbit`, "burst", "256kb", "latency", "100ms"];
    run(["tc", "qdisc", "replace", "dev", "eth0", ...limit], this.prefix);
    run(["ip", "netns", "exec", this.hub, "tc", "qdisc", "replace", "dev", this.port, ...limit]);
  }

  /** Takes the limit away again. */
  unshape(): void {
    run(["tc", "qdisc", "del", "dev", "eth0", "root"], this.prefix);
    run(["ip", "netns", "exec", this.hub, "tc", "qdisc", "del", "dev", this.port, "root"]);
  }
}

export class Network {
  readonly #name = `${NAME_PREFIX}-${process.pid}-${networksMade++}`;
  readonly #hub: string;
  readonly #scope: Scope;
  #machines = 0;

  constructor(scope: Scope) {
    sweepStale();
    this.#scope = scope;
    this.#hub = this.#add("hub");
    this.#inHub("ip", "link", "add", "br0", "type", "bridge");
    this.#inHub("ip", "link", "set", "br0", "up");
  }

  /** A new machine with an address of 10.77.0.0/24 and a loopback of its own. */
  machine(): Machine {
    const index = ++this.#machines;
    const namespace = this.#add(`m${index}`);
    const port = `port${index}`;
    const address = `10.77.0.${index}`;
    this.#inHub("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace);
    this.#inHub("ip", "link", "set", port, "master", "br0", "up");
    const inside = (...argv: string[]) => run(["ip", "-n", namespace, ...argv]);
    inside("link", "set", "lo", "up");
    inside("addr", "add", `${address}/24`, "dev", "eth0");
    inside("link", "set", "eth0", "up");
    return new Machine(namespace, address, this.#hub, port);
  }

  #add(suffix: string): string {
    const name = `${this.#name}-${suffix}`;
    run(["ip", "netns", "add", name]);
    this.#scope.defer(() => void run(["ip", "netns", "del", name]));
    return name;
  }

  #inHub(...argv: string[]): void {
    run(argv, ["ip", "netns", "exec", this.#hub]);
  }
}

function sweepStale(): void {
  if (swept) return;
  swept = true;
  for (const line of run(["ip", "netns", "list"]).split("\n")) {
    const name = line.split(" ")[0]!;
    if (isStale(name)) run(["ip", "netns", "del", name]);
  }
}
