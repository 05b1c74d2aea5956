/** `deploy --verify`: what was proven piece by piece while it was written is read from the disk once more. */
import type { TailContent } from "../disk/tail-store.ts";
import { ExitCode, Failure } from "../errors.ts";
import { isProven, type VerifyReport, verifyTarget } from "../image/verify.ts";
import { wrapInfo } from "../torrent/create.ts";
import { parseMetainfo } from "../torrent/metainfo.ts";
import type { Metainfo } from "../torrent/types.ts";
import { formatBytes } from "../units.ts";
import type { Output } from "./output.ts";
import { RateMeter } from "./rate.ts";

export interface VerifyAfterOptions {
  readonly metainfo: Metainfo;
  readonly trusted: boolean;
  readonly target: string;
  readonly io: "auto" | "uring" | "epoll";
  readonly direct: "auto" | "on" | "off";
  /** What has no place on the target. */
  readonly tail: TailContent | null;
  readonly output: Output;
  readonly signal: AbortSignal;
}

/** Reads the target again. False where it was stopped; throws a Failure (integrity) where something is wrong. */
export async function verifyAfter(options: VerifyAfterOptions): Promise<boolean> {
  const { metainfo, trusted, target, io, direct, tail, output, signal } = options;
  const meter = new RateMeter();
  const hooks = {
    warning: (code: string, message: string) => output.warning(code, message),
    progress: (bytesDone: number, bytesTotal: number) => {
      meter.add(bytesDone, performance.now());
      const rateBytesPerSecond = meter.bytesPerSecond;
      const etaSeconds = meter.etaSeconds(bytesTotal - bytesDone);
      output.progress({ bytesDone, bytesTotal, rateBytesPerSecond, etaSeconds, peers: 0, phase: "verify" });
    },
  };
  const report = await verifyTarget({ metainfo, trusted, targetPath: target, io, direct, tail }, hooks, signal);
  if (report === null) return false;
  if (!isProven(report)) throw new Failure(ExitCode.integrity, "verify-failed", describe(target, report));
  return true;
}

/** The metainfo of an info dictionary that came from the swarm. */
export function metainfoOfInfo(infoBytes: Uint8Array): Metainfo {
  return parseMetainfo(wrapInfo(infoBytes, []));
}

function describe(target: string, report: VerifyReport): string {
  const found = [];
  const first = report.badPieces[0]?.ranges[0]?.offsetBytes ?? report.badZeroRanges[0]?.offsetBytes;
  if (report.badPieceCount > 0)
    found.push(`${report.badPieceCount} of ${report.pieceCount} pieces are not what was written`);
  if (report.badZeroBytes > 0) found.push(`${formatBytes(report.badZeroBytes)} that were zeroed are not zero`);
  const where = first === undefined ? "" : `, the first at byte ${first}`;
  return `${target}: ${found.join(" and ")}${where}: the disk does not keep its data; replace it`;
}
