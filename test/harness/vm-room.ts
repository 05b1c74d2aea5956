/**
 * A room of machines as an admin has it: a network with DHCP and TFTP, the server with `diskswarm serve --boot`, and
 * machines that are switched on one after the other, from the network card or with the node's kernel started directly,
 * which saves the firmware's part where that is not what is tested.
 */
import { readdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { type Run, start } from "./diskswarm.ts";
import { type Machine, Network } from "./network.ts";
import { run } from "./process.ts";
import type { Scope } from "./scope.ts";
import { needTools } from "./tools.ts";
import { bootFolder, type Stages } from "./vm-boot.ts";
import { type BootServerOptions, type Cable, macOfCable, plugIn, startBootServer } from "./vm-network.ts";
import { PATIENCE, Vm, type VmOptions } from "./vm.ts";

export interface RoomOptions {
  /** What is served. */
  readonly images: readonly string[];
  /** What machines boot; another folder than the harness's own where one is named. */
  readonly stages?: Stages;
  readonly bootFolder?: string;
  /** Further files of that folder, by name. */
  readonly bootFiles?: Readonly<Record<string, string>>;
  /** What UEFI firmware loads instead of iPXE. */
  readonly loaders?: Pick<BootServerOptions, "uefiLoaders">;
  /** Flags of `serve`. */
  readonly flags?: readonly string[];
}

export interface NodeOptions extends Omit<VmOptions, "cable" | "kernel"> {
  /** The card that its cable is in, where it is not virtio's. */
  readonly card?: Cable["card"];
  /** With words for its command line the node's kernel is started directly, else the machine boots as its firmware does. */
  readonly words?: readonly string[];
}

/** What `/v1/nodes` says of a machine, as far as tests look at it. */
export interface NodeState {
  readonly id: string;
  readonly phase: string;
  readonly code?: string;
  readonly message?: string;
}

const HTTP_PORT = 6969;
/** As in /boot.ipxe: see src/server/boot-files.ts. */
const KERNEL_WORDS = ["console=ttyS0", "rootfstype=ramfs", "initcall_blacklist=tracer_init_tracefs", "quiet"];

export class Room {
  readonly url: string;
  readonly bootFolder: string;
  #machines = 0;

  private constructor(
    private readonly scope: Scope,
    private readonly network: Network,
    readonly server: Machine,
    private readonly options: RoomOptions,
  ) {
    this.url = `http://${server.address}:${HTTP_PORT}`;
    const folder = options.bootFolder ?? bootFolder(options.stages ?? "one-stage");
    this.bootFolder = options.bootFiles ? withFiles(scope, folder, options.bootFiles) : folder;
  }

  static async open(scope: Scope, options: RoomOptions): Promise<Room> {
    needTools("curl");
    const network = new Network(scope);
    const room = new Room(scope, network, network.machine(), options);
    const { loaders } = options;
    await startBootServer(scope, network.machine(), { scriptUrl: `${room.url}/boot.ipxe`, ...loaders });
    return room;
  }

  /** Starts the server; it serves when this resolves. */
  serve(...flags: string[]): Promise<Run> {
    return this.serveImages(this.options.images, ...flags);
  }

  /** The same with other images: an admin who has changed something. */
  async serveImages(images: readonly string[], ...flags: string[]): Promise<Run> {
    const { flags: own = [] } = this.options;
    const words = ["serve", ...images, "--listen", this.server.address, "--http", String(HTTP_PORT)];
    const serve = start(this.scope, [...words, "--boot", this.bootFolder, "--boot-args", PATIENCE, ...own, ...flags], {
      machine: this.server,
    });
    await serve.event("start");
    return serve;
  }

  /** The MAC address of the machine that was switched on as the first, the second ..., by which the server knows it. */
  static macOf(index: number): string {
    return macOfCable(index);
  }

  /** Switches the next machine of the room on. */
  switchOn(name: string, { words, card, ...options }: NodeOptions): Promise<Vm> {
    const cable = { ...plugIn(this.network, ++this.#machines), ...(card ? { card } : {}) };
    if (!words) return Vm.start(this.scope, name, { ...options, cable });
    const commandLine = [...KERNEL_WORDS, `diskswarm.server=${this.url}`, ...words].join(" ");
    const kernel = {
      kernel: join(this.bootFolder, "vmlinuz"),
      initrd: join(this.bootFolder, "initrd.img"),
      commandLine,
    };
    return Vm.start(this.scope, name, { ...options, cable, kernel });
  }

  /** What the server says of its machines, by MAC address. */
  nodes(): Map<string, NodeState> {
    const text = run(["curl", "-sf", `${this.url}/v1/nodes`], this.server.prefix);
    const { nodes } = JSON.parse(text) as { nodes: NodeState[] };
    return new Map(nodes.map((node) => [node.id, node]));
  }
}

/** The folder with other files beside its own. */
function withFiles(scope: Scope, folder: string, files: Readonly<Record<string, string>>): string {
  const all = scope.tempDir();
  for (const name of readdirSync(folder)) symlinkSync(join(folder, name), join(all, name));
  for (const [name, path] of Object.entries(files)) symlinkSync(path, join(all, name));
  return all;
}
