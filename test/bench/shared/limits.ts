/** What this machine can do at most: the bare copy, the hash and the bare connection that a contestant is held against. */
import { closeSync, openSync, readSync, rmSync } from "node:fs";
import { MiB } from "../../../src/units.ts";
import type { Machine } from "../../harness/network.ts";
import { freePort } from "../../harness/ports.ts";
import { Child, run } from "../../harness/process.ts";
import { Scope } from "../../harness/scope.ts";
import { needTools } from "../../harness/tools.ts";

/** Wall time of `work` in seconds. */
export function seconds(work: () => void): number {
  const beginMs = performance.now();
  work();
  return (performance.now() - beginMs) / 1000;
}

/** Seconds that cp(1) takes from `source` to the new file `copy`, which is removed again. */
export function copySeconds(source: string, copy: string): number {
  const taken = seconds(() => void run(["cp", "--reflink=never", "--sparse=never", source, copy]));
  rmSync(copy);
  return taken;
}

/** Seconds that dd(1) takes past the page cache, flushed, to the new file `copy`, which is removed again. */
export function directCopySeconds(source: string, copy: string): number {
  const how = ["bs=1M", "iflag=direct", "oflag=direct", "conv=fsync", "status=none"];
  const taken = seconds(() => void run(["dd", `if=${source}`, `of=${copy}`, ...how]));
  rmSync(copy);
  return taken;
}

/** Seconds for one core to read `source` and hash it. */
export function hashSeconds(source: string, algorithm: "sha1" | "sha256" = "sha1"): number {
  const fd = openSync(source, "r");
  const buffer = Buffer.allocUnsafe(MiB);
  const hasher = new Bun.CryptoHasher(algorithm);
  const taken = seconds(() => {
    for (let got = readSync(fd, buffer, 0, MiB, null); got > 0; got = readSync(fd, buffer, 0, MiB, null)) {
      hasher.update(buffer.subarray(0, got));
    }
    hasher.digest();
  });
  closeSync(fd);
  return taken;
}

/** An address where iperf3 can run: in a machine of a test network, or on this one. */
export interface Place {
  readonly address: string;
  readonly machine?: Machine;
}

export interface Goodput {
  /** Payload bytes per second that the receiver saw. */
  readonly forward: number;
  /** The other way at the same time; null where only one was asked for. */
  readonly backward: number | null;
}

/** How much iperf3 carries from `from` to `to` by one connection, or by one in each direction at the same time. */
export async function iperfGoodput(
  from: Place,
  to: Place,
  amount: { bytes: number } | { seconds: number },
  bothWays = false,
): Promise<Goodput> {
  needTools("iperf3");
  const scope = new Scope();
  try {
    const port = String(to.machine ? 5201 : await freePort(to.address));
    const listen = ["iperf3", "--server", "--one-off", "--forceflush", "--bind", to.address, "--port", port];
    const server = new Child(scope, listen, { prefix: to.machine?.prefix ?? [] });
    await server.waitForLine(/Server listening/);
    const dose = "bytes" in amount ? ["--bytes", String(amount.bytes)] : ["--time", String(amount.seconds)];
    const words = ["--client", to.address, "--port", port, ...dose, ...(bothWays ? ["--bidir"] : []), "--json"];
    const client = new Child(scope, ["iperf3", ...words], { prefix: from.machine?.prefix ?? [] });
    const { stdout, exitCode } = await client.ended;
    if (exitCode !== 0) throw new Error(`iperf3 ended with ${exitCode}: ${stdout}`);
    const { end } = JSON.parse(stdout) as { end: Record<string, { bits_per_second: number }> };
    const rate = (sum: string) => end[sum]!.bits_per_second / 8;
    return {
      forward: rate("sum_received"),
      backward: bothWays ? rate("sum_received_bidir_reverse") : null,
    };
  } finally {
    await scope.close();
  }
}
