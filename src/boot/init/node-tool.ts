/** Tools of the initramfs: what they answer, or why not, as words for a console. Nothing here ends a node's work. */
import { reasonOf, runToolForText, type Tool } from "../../image/external-tool.ts";

export type ToolAnswer =
  | { readonly stdout: string; readonly problem: null }
  | { readonly stdout: null; readonly problem: string };

/** Runs a tool to its end. A problem names the tool. */
export async function askTool(tool: Tool, words: readonly string[]): Promise<ToolAnswer> {
  const problem = (why: string): ToolAnswer => ({ stdout: null, problem: `${tool.program} ${why}` });
  if (Bun.which(tool.program) === null) return problem(`is not in this initramfs (package ${tool.package})`);
  const run = await runToolForText(tool, words, null);
  return run.exitCode === 0 ? { stdout: run.stdout, problem: null } : problem(`failed: ${reasonOf(run)}`);
}
