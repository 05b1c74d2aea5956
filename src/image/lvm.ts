/**
 * The logical volumes inside an LVM physical volume, by LVM's own report, for a survey to look into. Nothing is
 * activated: a volume that lies in one run on this disk is a part of it like a partition, and device mapper is
 * not needed to read a part.
 *
 * Only ordinary linear volumes count. Anything that gives bytes another meaning than their place says (origins
 * of snapshots, thin and cached volumes, RAID, volumes in several places or over several disks) is left alone,
 * which means that it is captured as data.
 */
import { type Tool, reasonOf, runToolForText } from "./external-tool.ts";

const PVS: Tool = { program: "pvs", package: "lvm2" };
const FIELDS = "pe_start,vg_extent_size,lv_name,lv_attr,lv_size,segtype,pvseg_start,pvseg_size,seg_start_pe";
/** lvs(8), lv_attr: the volume's type is its first letter, none for an ordinary one. */
const ORDINARY = "-";
/** LVM's own limit is far above; a report that is longer is not looked at. */
const SEGMENTS_MAX = 10_000;

export interface Volume {
  readonly name: string;
  /** From the physical volume's first byte. */
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** One run of extents of the physical volume. */
interface Segment {
  readonly name: string;
  readonly isPlain: boolean;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Where in its volume it belongs. */
  readonly volumeOffsetBytes: number;
  readonly volumeBytes: number;
}

/** The volumes of the physical volume on a device, ascending; or why they are not known, as words. Throws Interrupted. */
export async function volumesOn(
  devicePath: string,
  deviceBytes: number,
  signal: AbortSignal,
): Promise<Volume[] | string> {
  if (Bun.which(PVS.program) === null) return `${PVS.program} is not installed (package ${PVS.package})`;
  // This device alone, whatever else has the same identifiers, without locks, hints or a list of devices.
  const alone = ["--readonly", "--nohints", "--devices", devicePath];
  const form = ["--segments", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", FIELDS];
  const run = await runToolForText(PVS, [...alone, ...form], signal);
  if (run.exitCode !== 0) return `pvs failed: ${reasonOf(run)}`;
  return parseVolumes(run.stdout, deviceBytes) ?? "what pvs tells makes no sense";
}

/** Reads the report of `pvs`; null where it makes no sense. */
export function parseVolumes(text: string, deviceBytes: number): Volume[] | null {
  const segments = parseSegments(text);
  if (segments === null) return null;
  segments.sort((a, b) => a.offsetBytes - b.offsetBytes);
  let endBytes = 0;
  for (const { offsetBytes, lengthBytes } of segments) {
    if (offsetBytes < endBytes || offsetBytes + lengthBytes > deviceBytes) return null;
    endBytes = offsetBytes + lengthBytes;
  }
  const names = [...new Set(segments.map(({ name }) => name))];
  return names
    .map((name) => wholeVolume(segments.filter((segment) => segment.name === name)))
    .filter((volume) => volume !== null)
    .sort((a, b) => a.offsetBytes - b.offsetBytes);
}

/** The volume that consists of these segments, which ascend on the disk; null unless it lies there in one run. */
function wholeVolume(segments: readonly Segment[]): Volume | null {
  const { name, offsetBytes, volumeBytes } = segments[0];
  // Without a name they are free; names in brackets are parts of something else.
  if (!/^[\w+.-]+$/.test(name)) return null;
  let doneBytes = 0;
  for (const segment of segments) {
    const isNext = segment.volumeOffsetBytes === doneBytes && segment.offsetBytes === offsetBytes + doneBytes;
    if (!segment.isPlain || !isNext) return null;
    doneBytes += segment.lengthBytes;
  }
  return doneBytes === volumeBytes ? { name, offsetBytes, lengthBytes: volumeBytes } : null;
}

function parseSegments(text: string): Segment[] | null {
  try {
    const { report } = JSON.parse(text) as { report?: { pvseg?: unknown }[] };
    const rows = report?.[0]?.pvseg;
    if (!Array.isArray(rows) || rows.length > SEGMENTS_MAX) return null;
    const segments = rows.map(segmentOf);
    return segments.some((segment) => segment === null) ? null : (segments as Segment[]);
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return null;
    throw error;
  }
}

function segmentOf(row: Record<string, unknown>): Segment | null {
  const number = (key: string) => (/^\d{1,16}$/.test(String(row[key])) ? Number(row[key]) : Number.NaN);
  const extentBytes = number("vg_extent_size");
  const segment: Segment = {
    name: String(row.lv_name ?? ""),
    isPlain: row.segtype === "linear" && String(row.lv_attr).startsWith(ORDINARY),
    offsetBytes: number("pe_start") + number("pvseg_start") * extentBytes,
    lengthBytes: number("pvseg_size") * extentBytes,
    volumeOffsetBytes: number("seg_start_pe") * extentBytes,
    volumeBytes: number("lv_size"),
  };
  const { offsetBytes, lengthBytes, volumeOffsetBytes, volumeBytes } = segment;
  const areSafe = [offsetBytes + lengthBytes, lengthBytes, volumeOffsetBytes, volumeBytes].every(Number.isSafeInteger);
  return areSafe ? segment : null;
}
