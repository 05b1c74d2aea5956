/** What Bun's JUnit report of a test file says: its counts, and each test that failed with what was wrong. */

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

export interface Report {
  readonly counts: Counts;
  /** Name and error of each failed test, one line each. */
  readonly failures: readonly string[];
}

/** An error may hold the output of ten processes; what is wrong stands at its beginning. */
const LINE_CHARACTERS_MAX = 300;
const ENTITIES: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };

/** Null where it is no whole report. */
export function parseReport(xml: string): Report | null {
  const head = /<testsuites[^>]*>/.exec(xml)?.[0] ?? "";
  const count = (name: string) => Number(new RegExp(` ${name}="(\\d+)"`).exec(head)?.[1] ?? Number.NaN);
  const [tests, failed, skipped] = [count("tests"), count("failures"), count("skipped")] as const;
  if (![tests, failed, skipped].every(Number.isInteger)) return null;
  const cases = xml.matchAll(/<testcase ([^>]*[^/])>\s*<failure ([^>]*)/g);
  const failures = [...cases].map(([, testCase, failure]) => {
    const groups = attribute(testCase!, "classname").split(" > ").reverse();
    const name = [...groups, attribute(testCase!, "name")].filter((part) => part !== "").join(" > ");
    return oneLine(`${name}: ${attribute(failure!, "message")}`);
  });
  return { counts: { passed: tests - failed - skipped, failed, skipped }, failures };
}

export function oneLine(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length <= LINE_CHARACTERS_MAX ? line : `${line.slice(0, LINE_CHARACTERS_MAX)} ...`;
}

function attribute(tag: string, name: string): string {
  const text = new RegExp(`(?:^| )${name}="([^"]*)"`).exec(tag)?.[1] ?? "";
  return text.replace(/&(?:#(\d+)|(\w+));/g, (all, code, word) =>
    code === undefined ? (ENTITIES[word] ?? all) : String.fromCodePoint(Number(code)),
  );
}
