/** The programs that change a disk after its image is proven: which they are, and what is told where they fail. */
import { ExitCode, Failure } from "../errors.ts";
import { reasonOf, runToolForText, type Tool, type ToolText } from "../image/external-tool.ts";

export const SFDISK: Tool = { program: "sfdisk", package: "fdisk" };
export const BLKID: Tool = { program: "blkid", package: "util-linux" };
export const LOSETUP: Tool = { program: "losetup", package: "mount" };
export const MOUNT: Tool = { program: "mount", package: "mount" };
export const UMOUNT: Tool = { program: "umount", package: "mount" };
export const PARTX: Tool = { program: "partx", package: "util-linux" };
export const UNSHARE: Tool = { program: "unshare", package: "util-linux" };

/** What could not be done to a disk that is proven: the image is on it. */
export function fitFailure(code: string, message: string): Failure {
  return new Failure(ExitCode.failed, code, message);
}

/** Throws Failure (exit 1) that names what has to be installed. */
export function needTools(tools: readonly Tool[], purpose: string): void {
  const missing = tools.filter(({ program }) => Bun.which(program) === null);
  if (missing.length === 0) return;
  const programs = missing.map(({ program }) => program).join(", ");
  const packages = [...new Set(missing.map((tool) => tool.package))].join(", ");
  const verb = missing.length === 1 ? "is" : "are";
  throw fitFailure(
    "tool-missing",
    `${programs} ${verb} not installed, for ${purpose}: install the package ${packages}`,
  );
}

/**
 * Runs a tool that changes the disk: it is not interrupted, since half of a change is worse than none or all.
 * Throws Failure where it ends with another status than those in `good`.
 */
export async function change(
  tool: Tool,
  args: readonly string[],
  { input = "", good = [0] }: { readonly input?: string; readonly good?: readonly number[] } = {},
): Promise<ToolText> {
  needTools([tool], "changing the disk");
  const run = await runToolForText(tool, args, null, input);
  if (good.includes(run.exitCode)) return run;
  throw fitFailure(tool.program, `${tool.program} failed (${reasonOf(run)})`);
}
