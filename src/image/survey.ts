/**
 * Looks at a source before it is read: its partition table, what each partition holds, and which blocks the
 * filesystems use. What comes out is the list of ranges that a capture has to read; everything else is unused.
 *
 * One rule decides: only a filesystem's own map can make a byte unused (and swap, which holds nothing beside
 * its header). The boot code, the tables, what lies between partitions, what no map speaks of and every
 * filesystem that is in doubt is read in full. The knowledge is that of the tools; nothing is guessed here.
 */
import { ExitCode, Failure, refusedTarget } from "../errors.ts";
import { parsePartitionTable, type PartitionTable, tableProblem } from "../torrent/partition-table.ts";
import { EXTENTS_MAX } from "../limits.ts";
import type { RangeTable } from "../torrent/types.ts";
import { KiB } from "../units.ts";
import { type CaptureSource, openCaptureSource } from "./capture-source.ts";
import { diskReader, type ReadDisk } from "./disk-reader.ts";
import { runToolForText, reasonOf, throwIfTooOld, type Tool, toolFailure } from "./external-tool.ts";
import type { KnownMaps } from "./foreign/unpack.ts";
import { uncleanState, uncleanXfs } from "./filesystem-state.ts";
import { checkGpt } from "./gpt-check.ts";
import { volumesOn } from "./lvm.ts";
import { isMountedReadWrite, refuseMounted } from "./mounted-source.ts";
import { partcloneKnows, readUsedMap, type UsedMap } from "./partclone.ts";
import { type Area, areasOf, portableTable } from "./partition-table.ts";
import { openReadOnlyView } from "./read-only-view.ts";
import { readSignature } from "./signature.ts";
import { TakenRanges } from "./taken-ranges.ts";

const SFDISK: Tool = { program: "sfdisk", package: "fdisk" };
/** Tables whose partitions lie side by side and cover nothing twice; others (Sun, BSD, Mac) are captured as data. */
const TABLE_TYPES = new Set(["gpt", "dos"]);
/** blkid's word for a physical volume. */
const LVM = "LVM2_member";
/**
 * Boot code stands at the start of a partition too, in places that filesystems leave free and maps may call
 * unused: Btrfs keeps 64 KiB for it, the others less. A swap header is one page, which is never longer.
 */
const PARTITION_HEAD_BYTES = 64 * KiB;

export interface SurveyRequest {
  readonly sourcePath: string;
  /** `partclone` asks for at least one map; `auto` does without where there is nothing that it knows. */
  readonly extents: "auto" | "partclone";
  readonly mergeGapBytes: number;
  /** Go on where the source is in doubt; what is in doubt is then read in full. */
  readonly force: boolean;
  /** The maps of the images that the source was unpacked from; null: its filesystems are asked. */
  readonly maps: KnownMaps | null;
  /** Ranges as partclone names them: neither widened nor joined, and of one filesystem alone nothing beside its map. */
  readonly isExact: boolean;
}

/** Plain data, handed to the thread of the capture. */
export interface Survey {
  readonly diskBytes: number;
  /** To be read: ascending, in whole blocks of 4 KiB, those closer than the merge gap joined. */
  readonly taken: RangeTable;
  /** What had to be read, before blocks were filled and ranges joined. */
  readonly neededBytes: number;
  /** As asked for, or wider where there were too many ranges to keep. */
  readonly mergeGapBytes: number;
  /** For info["diskswarm"]. */
  readonly partitions: string | undefined;
  readonly filesystems: readonly string[];
  readonly blockBytes: readonly number[];
}

/** Told of what does not end a capture; `code` is for programs. */
export type Warn = (code: string, message: string) => void;

/** Throws Failure: exit 4 for a source in a state that `force` would bear, 1 where a tool is missing or fails. */
export async function surveySource(request: SurveyRequest, warn: Warn, signal: AbortSignal): Promise<Survey> {
  const source = openCaptureSource(request.sourcePath, false);
  try {
    return await new Surveyor(source, request, warn, signal).run();
  } finally {
    source.close();
  }
}

class Surveyor {
  readonly #taken: TakenRanges;
  readonly #read: ReadDisk;
  #mapCount = 0;
  /** The source is one filesystem, of which partclone's map is all that is wanted. */
  #isMapAll = false;

  constructor(
    readonly source: CaptureSource,
    readonly request: SurveyRequest,
    readonly warn: Warn,
    readonly signal: AbortSignal,
  ) {
    this.#taken = request.isExact
      ? new TakenRanges(source.sizeBytes, 0, EXTENTS_MAX, 1)
      : new TakenRanges(source.sizeBytes, request.mergeGapBytes);
    this.#read = diskReader(source.bufferedFd);
  }

  async run(): Promise<Survey> {
    const { source, request } = this;
    // The thread that captures looks again, and is the one to warn.
    if (source.isBlockDevice) refuseMounted(source, request.force, () => {});
    const whole = await readSignature(source.path, null, this.signal);
    const isFilesystem = source.kind === "partition" || request.maps?.has(0);
    const tableText = isFilesystem ? null : await this.#readTable(whole.tableType);
    const table = tableText === null ? null : this.#parseTable(tableText);
    const isInDoubt = table !== null && table.partitions.length > 0 && whole.type !== "";
    if (isInDoubt) this.#warnOfBoth(whole.type);
    const usedTable = isInDoubt || table?.partitions.length === 0 ? null : table;
    this.#isMapAll = request.isExact && usedTable === null;
    const filesystems: string[] = usedTable === null ? [""] : usedTable.partitions.map(() => "");
    const blockBytes = filesystems.map(() => 0);
    for (const area of areasOf(usedTable, source.sizeBytes)) {
      if (area.partition < 0) {
        this.#takeAll(area);
        continue;
      }
      const signature = usedTable === null ? whole : await readSignature(source.path, area, this.signal);
      filesystems[area.partition] = isInDoubt ? "" : signature.type;
      blockBytes[area.partition] = isInDoubt ? 0 : signature.blockBytes;
      await this.#takePartition(area, filesystems[area.partition], usedTable?.partitions[area.partition].number ?? 0);
    }
    if (request.extents === "partclone" && this.#mapCount === 0) throw this.#nothingKnown();
    const { list, toldBytes, mergeGapBytes } = this.#taken;
    const taken = list.table();
    return {
      diskBytes: source.sizeBytes,
      taken: { ...taken, diskOffsetBytes: taken.diskOffsetBytes.slice(), lengthBytes: taken.lengthBytes.slice() },
      neededBytes: toldBytes,
      mergeGapBytes,
      partitions: usedTable === null ? undefined : portableTable(tableText!),
      filesystems,
      blockBytes,
    };
  }

  /** sfdisk's JSON, or null where there is no table that partitions are taken from. */
  async #readTable(tableType: string): Promise<string | null> {
    const { source } = this;
    const gpt = checkGpt(this.#read, source.sizeBytes, source.sectorBytes);
    if (gpt !== null && (gpt.primary !== null || gpt.backup !== null)) {
      const [copy, problem] = gpt.primary !== null ? ["primary", gpt.primary] : ["backup", gpt.backup];
      const both = gpt.primary !== null && gpt.backup !== null ? "; its backup is damaged too" : "";
      this.#refuse(
        "gpt-damaged",
        `the ${copy} GPT of ${source.path} is damaged: its header ${problem}${both}`,
        both === "" ? `repair it with sgdisk --move-second-header ${source.path}` : "make a new one",
        "the disk is captured as it is",
      );
      if (both !== "") return null;
    }
    if (gpt === null && !TABLE_TYPES.has(tableType)) return null;
    const run = await runToolForText(SFDISK, ["--json", source.path], this.signal);
    if (run.exitCode === 0) return run.stdout;
    throwIfTooOld(SFDISK, run);
    throw toolFailure("sfdisk", `sfdisk cannot read the partition table of ${source.path} (${reasonOf(run)})`);
  }

  #parseTable(text: string): PartitionTable | null {
    const { source } = this;
    const table = parsePartitionTable(text, source.sectorBytes);
    if (typeof table === "string")
      throw toolFailure("partition-table", `the partition table of ${source.path} ${table}`);
    const problem = tableProblem(table, source.sizeBytes);
    if (problem === null) return table;
    this.#refuse(
      "partition-table",
      `the partition table of ${source.path} makes no sense: partition ${problem}`,
      "correct it with sfdisk",
      "no partition is looked into, every byte that is not zero is captured",
    );
    return null;
  }

  async #takePartition(area: Area, type: string, number: number): Promise<void> {
    const { maps } = this.request;
    if (maps !== null) this.#takeKnown(area, type, maps.get(number));
    else if (this.#isWrittenTo(number)) this.#takeAll(area);
    else if (type === LVM) await this.#takeVolumes(area);
    else await this.#takeContent(area, type);
  }

  /** What was restored from an image: its blocks are those of the map, whatever state the filesystem was in. */
  #takeKnown(area: Area, type: string, map: UsedMap | undefined): void {
    if (type === "swap") return this.#takeHead(area);
    if (map === undefined) return this.#takeAll(area);
    const unclean = uncleanState(type, (offset, length) => this.#read(area.offsetBytes + offset, length));
    if (unclean !== null)
      this.warn("filesystem-unclean", `the ${type} filesystem of ${area.name} ${unclean}: it was saved in that state`);
    this.#takeMapped(area, map.endBytes, (visit) => map.forEachRun(visit));
    this.#mapCount++;
  }

  /** What a partition or a logical volume holds. */
  async #takeContent(area: Area, type: string): Promise<void> {
    if (type === "swap") return this.#takeHead(area);
    const isMapped = partcloneKnows(type) && (await this.#takeUsed(area, type));
    if (isMapped) this.#mapCount++;
    else this.#takeAll(area);
  }

  /** LVM's own structures, free extents, and volumes that do not lie in one run are taken whole. */
  async #takeVolumes(area: Area): Promise<void> {
    const { path } = this.source;
    const view = await openReadOnlyView(path, area.offsetBytes, area.lengthBytes);
    const volumes = await volumesOn(view.path, area.lengthBytes, this.signal).finally(() => view.close());
    if (typeof volumes === "string") {
      const what = `the volumes in the LVM of ${path}, ${area.name}, are not looked into: ${volumes}`;
      this.warn("lvm", `${what}; every byte that is not zero is captured`);
      return this.#takeAll(area);
    }
    let position = area.offsetBytes;
    for (const { name, offsetBytes, lengthBytes } of volumes) {
      const start = area.offsetBytes + offsetBytes;
      this.#taken.take(position, start - position);
      const volume: Area = { ...area, offsetBytes: start, lengthBytes, name: `${area.name}, volume ${name}` };
      await this.#takeContent(volume, (await readSignature(path, volume, this.signal)).type);
      position = start + lengthBytes;
    }
    this.#taken.take(position, area.offsetBytes + area.lengthBytes - position);
  }

  /** A map of what is being written to (which was forced) is old before it is read. */
  #isWrittenTo(number: number): boolean {
    return this.source.isBlockDevice && isMountedReadWrite(this.source.deviceId, number);
  }

  #takeHead({ offsetBytes, lengthBytes }: Area): void {
    this.#taken.take(offsetBytes, Math.min(PARTITION_HEAD_BYTES, lengthBytes));
  }

  #takeAll({ offsetBytes, lengthBytes }: Area): void {
    this.#taken.take(offsetBytes, lengthBytes);
  }

  /** False: there is no map that can be trusted. */
  async #takeUsed(area: Area, type: string): Promise<boolean> {
    const name = `the ${type} filesystem of ${this.source.path}${area.name === "all of it" ? "" : `, ${area.name},`}`;
    const unclean = uncleanState(type, (offset, length) => this.#read(area.offsetBytes + offset, length));
    if (unclean !== null) return this.#refuseUnclean(name, unclean);
    const view = await openReadOnlyView(this.source.path, area.offsetBytes, area.lengthBytes);
    try {
      const log = type === "xfs" ? await uncleanXfs(view.path, this.signal) : null;
      if (log !== null) return this.#refuseUnclean(name, log);
      const map = await readUsedMap(type, view.path, this.signal);
      if ("reason" in map) return this.#refuseUnclean(name, `has no map that can be used: ${map.reason}`);
      try {
        if (map.endBytes > area.lengthBytes)
          return this.#refuseUnclean(name, `has ${map.endBytes} bytes and its partition ${area.lengthBytes}`);
        this.#takeMapped(area, map.endBytes, (visit) => map.forEachRun(visit));
        return true;
      } finally {
        map.close();
      }
    } finally {
      view.close();
    }
  }

  #takeMapped(
    area: Area,
    endBytes: number,
    forEachRun: (visit: (offsetBytes: number, lengthBytes: number) => void) => void,
  ): void {
    const taken = this.#taken;
    const { offsetBytes, lengthBytes } = area;
    if (!this.#isMapAll) this.#takeHead(area);
    forEachRun((runOffset, runLength) => taken.take(offsetBytes + runOffset, runLength));
    if (endBytes < lengthBytes && !this.#isMapAll) taken.take(offsetBytes + endBytes, lengthBytes - endBytes);
  }

  #refuseUnclean(name: string, problem: string): false {
    this.#refuse(
      "filesystem-unclean",
      `${name} ${problem}`,
      "mount and unmount it, check it with its fsck (Windows: shut down fully)",
      "it is captured without a map, every byte that is not zero",
    );
    return false;
  }

  #warnOfBoth(type: string): void {
    const both = `${this.source.path} has a partition table and, across it, the signature of ${type}`;
    this.warn("several-signatures", `${both}: none is looked into, every byte that is not zero is captured`);
  }

  /** Ends the capture, unless it was forced. `forced` says what is done then. */
  #refuse(code: string, problem: string, remedy: string, forced: string): void {
    if (!this.request.force) throw refusedTarget(code, `${problem}; ${remedy}, or go on with --force: ${forced}`);
    this.warn(code, `${problem}; ${forced}`);
  }

  #nothingKnown(): Failure {
    const what = `no filesystem that partclone knows is on ${this.source.path}`;
    return new Failure(ExitCode.failed, "no-filesystem", `${what}: capture it with --extents data`);
  }
}
