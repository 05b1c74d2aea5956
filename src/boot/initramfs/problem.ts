/** How building an initramfs fails: one line for the person who builds. */
import { ExitCode, Failure } from "../../errors.ts";

export function buildFailure(code: string, message: string): Failure {
  return new Failure(ExitCode.failed, code, message);
}
