/**
 * The room of a fleet: a server and its nodes, each in a network namespace, on one bridge, with links that
 * are shaped in both directions. What a link carries is measured in the same namespaces.
 */
import { readFileSync } from "node:fs";
import { usageError } from "../../../src/errors.ts";
import { type Machine, Network } from "../../harness/network.ts";
import type { Scope } from "../../harness/scope.ts";
import { iperfGoodput } from "../shared/limits.ts";

/** What every cable of the room is like. */
export interface Link {
  readonly name: string;
  /** Each direction's rate. */
  readonly megabits: number;
  /** Of what arrives at a machine, 0 to 1. */
  readonly lossShare: number;
}

export interface RoomGoodput {
  /** Payload bytes per second of one connection from the server to a node, nothing else going on. */
  readonly toNode: number;
  /** The same from a node to the server. */
  readonly toServer: number;
  /** Of one connection in each direction at the same time. */
  readonly bothWays: readonly [number, number];
}

const PROBE_SECONDS = 4;

export class Room {
  readonly server: Machine;
  readonly nodes: readonly Machine[];
  readonly #machines: readonly Machine[];

  constructor(scope: Scope, nodes: number) {
    const network = new Network(scope);
    this.#machines = Array.from({ length: nodes + 1 }, () => network.machine());
    [this.server, ...this.nodes] = this.#machines as [Machine, ...Machine[]];
    for (const machine of this.#machines) {
      // udpcast's rendezvous has no other way out.
      machine.run("ip", "route", "add", "224.0.0.0/4", "dev", "eth0");
    }
  }

  /** Makes every cable such a link. */
  lay(link: Link): void {
    for (const machine of this.#machines) {
      machine.shape(link.megabits);
      machine.lose(link.lossShare);
    }
  }

  /** What TCP does about congestion in every machine: the name of an algorithm. Throws a usage failure where it may not. */
  useCongestionControl(name: string): void {
    for (const { prefix } of this.#machines) {
      const words = ["sysctl", "--quiet", "--write", `net.ipv4.tcp_congestion_control=${name}`];
      const { exitCode } = Bun.spawnSync([...prefix, ...words], { stdin: "ignore", stderr: "ignore" });
      if (exitCode === 0) continue;
      // Namespaces may use some of what the kernel has; which is only to be seen outside of them.
      const allowed = readFileSync("/proc/sys/net/ipv4/tcp_allowed_congestion_control", "utf8").trim();
      throw usageError(
        `--congestion ${name} is not for namespaces here, which may have ${allowed} (net.ipv4.tcp_allowed_congestion_control)`,
      );
    }
  }

  /** What the cables as they are carry between the server and the first node. */
  async goodput(): Promise<RoomGoodput> {
    const [server, node] = [this.server, this.nodes[0]!].map((machine) => ({ machine, address: machine.address })) as [
      { machine: Machine; address: string },
      { machine: Machine; address: string },
    ];
    const dose = { seconds: PROBE_SECONDS };
    const toNode = await iperfGoodput(server, node, dose);
    const toServer = await iperfGoodput(node, server, dose);
    const both = await iperfGoodput(server, node, dose, true);
    return { toNode: toNode.forward, toServer: toServer.forward, bothWays: [both.forward, both.backward!] };
  }
}
