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

  /** A second address of this machine, on its loopback device, as a machine of its own to programs that take one. */
  alias(address: string): Machine {
    this.run("ip", "addr", "add", `${address}/32`, "dev", "lo");
    return new Machine(this.namespace, address, this.hub, this.port);
  }

  spawn(scope: Scope, argv: readonly string[], options: SpawnOptions = {}): Child {
    return new Child(scope, argv, { ...options, prefix: this.prefix });
  }

  /** Runs a command in this machine to its end and returns its output. */
  run(...argv: string[]): string {
    return run(argv, this.prefix);
  }

  /**
   * Limits what this machine sends and receives to `megabits` per second each (tc-tbf(8)). The bucket holds one
   * largest segmentation-offload frame; the queue before it holds what passes in 50 ms, as a switch's port may.
   */
  shape(megabits: number): void {
    const limit = ["root", "tbf", "rate", `${megabits}mbit`, "burst", "64kb", "latency", "50ms"];
    run(["tc", "qdisc", "replace", "dev", "eth0", ...limit], this.prefix);
    run(["ip", "netns", "exec", this.hub, "tc", "qdisc", "replace", "dev", this.port, ...limit]);
  }

  /** Takes the limit away again. */
  unshape(): void {
    run(["tc", "qdisc", "del", "dev", "eth0", "root"], this.prefix);
    run(["ip", "netns", "exec", this.hub, "tc", "qdisc", "del", "dev", this.port, "root"]);
  }

  /**
   * Loses `share` (0 to 1) of what arrives here, at random: a classifier draws a random number per packet
   * (tc-bpf(8), classic BPF), which kernels without netem have as well. 0 ends it.
   */
  lose(share: number): void {
    const queue = (verb: string) => ["tc", "qdisc", verb, "dev", "eth0", "ingress"];
    Bun.spawnSync([...this.prefix, ...queue("del")], { stderr: "ignore" });
    if (share === 0) return;
    run(queue("add"), this.prefix);
    const filter = ["tc", "filter", "add", "dev", "eth0", "ingress", "protocol", "ip", "bpf", "direct-action"];
    run([...filter, "bytecode", lossProgram(share)], this.prefix);
  }

  /** Bytes with their Ethernet heads that left this machine since it was made, as the other end of its cable counts them. */
  get sentBytes(): number {
    const statistics = ["ip", "-n", this.hub, "-json", "-statistics", "link", "show", "dev", this.port];
    const [link] = JSON.parse(run(statistics)) as [{ stats64: { rx: { bytes: number } } }];
    return link.stats64.rx.bytes;
  }
}

/** Classic BPF in tc's notation: shot (2) with probability `share`, else on to the next filter (-1). */
function lossProgram(share: number): string {
  const threshold = Math.min(0xffff_ffff, Math.round(share * 2 ** 32));
  const instructions = [
    // ld [SKF_AD_OFF + SKF_AD_RANDOM]; jge threshold; ret TC_ACT_SHOT; ret TC_ACT_UNSPEC
    [0x20, 0, 0, 0xffff_f000 + 56],
    [0x35, 1, 0, threshold],
    [0x06, 0, 0, 2],
    [0x06, 0, 0, 0xffff_ffff],
  ];
  return [instructions.length, ...instructions.map((fields) => fields.join(" "))].join(",");
}

export class Network {
  readonly #name = `${NAME_PREFIX}-${process.pid}-${networksMade++}`;
  readonly #hub: string;
  readonly #scope: Scope;
  #machines = 0;
  #taps = 0;

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

  /** A cable for a virtual machine: a tap device on the bridge, and what starts a program where it is. */
  tap(): { tap: string; prefix: string[] } {
    const tap = `tap${++this.#taps}`;
    this.#inHub("ip", "tuntap", "add", "dev", tap, "mode", "tap");
    this.#inHub("ip", "link", "set", tap, "master", "br0", "up");
    return { tap, prefix: ["ip", "netns", "exec", this.#hub] };
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
