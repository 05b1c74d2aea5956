/**
 * Images that `split` cut into files: NAME.aa, NAME.ab and so on (Clonezilla), or NAME.00, NAME.01. Handed over as
 * the list of all of them, or refused where one is missing: without it the rest unpacks to something else.
 */
import { existsSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { ExitCode, Failure } from "../../errors.ts";

/** `split -a` takes as many letters as wanted; 26 ** 4 files are more than any image has. */
const SUFFIX = /^(.+\.)([a-z]{2,4}|[0-9]{2,4})$/;

/** The files of the image whose first or only one is `path`, in order. Throws Failure for a gap. */
export function partsOf(path: string): string[] {
  const name = SUFFIX.exec(basename(path));
  if (name === null) return [path];
  const [, prefix, suffix] = name;
  const first = firstSuffix(suffix);
  const folder = dirname(path);
  if (suffix !== first) {
    // `image.raw.gz` ends in letters too; it is a part only where there is a first one.
    if (!existsSync(join(folder, prefix + first))) return [path];
    throw failure(`${path} is a part of an image that was split: name its first file, ${join(folder, prefix + first)}`);
  }
  const suffixes = readdirSync(folder)
    .filter((entry) => entry.startsWith(prefix) && entry.length === prefix.length + suffix.length)
    .map((entry) => entry.slice(prefix.length))
    .filter((entry) => (isLetters(suffix) ? /^[a-z]+$/ : /^[0-9]+$/).test(entry))
    .sort();
  const missing = missingSuffix(suffixes);
  if (missing !== null)
    throw failure(
      `${join(folder, prefix + missing)} is missing: the image was split into it and ${suffixes.length} others`,
    );
  return suffixes.map((each) => join(folder, prefix + each));
}

/** The first suffix that sorted ones, of one length, leave out; null where they follow each other from the first on. */
export function missingSuffix(suffixes: readonly string[]): string | null {
  let expected = firstSuffix(suffixes[0] ?? "aa");
  for (const suffix of suffixes) {
    if (suffix !== expected) return expected;
    expected = nextSuffix(suffix);
  }
  return null;
}

function firstSuffix(like: string): string {
  return (isLetters(like) ? "a" : "0").repeat(like.length);
}

/** `az` is followed by `ba`. */
function nextSuffix(suffix: string): string {
  const [first, last] = isLetters(suffix) ? ["a", "z"] : ["0", "9"];
  const characters = [...suffix];
  for (let i = characters.length - 1; i >= 0; i--) {
    if (characters[i] !== last) {
      characters[i] = String.fromCharCode(characters[i].charCodeAt(0) + 1);
      break;
    }
    characters[i] = first;
  }
  return characters.join("");
}

function isLetters(suffix: string): boolean {
  return /^[a-z]/.test(suffix);
}

function failure(message: string): Failure {
  return new Failure(ExitCode.failed, "image-part", message);
}
