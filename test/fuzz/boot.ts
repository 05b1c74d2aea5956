/** Fuzz targets of src/boot: what a node reads of its surroundings, and what it and its server say to each other. */
import { deepStrictEqual, ok } from "node:assert";
import { parseCommandLine, splitCommandLine } from "../../src/boot/init/command-line.ts";
import { entryFor, parseBootEntries } from "../../src/boot/init/efi-loader.ts";
import { findKernel } from "../../src/boot/init/find-kernel.ts";
import { parseEnvironmentFile } from "../../src/boot/init/machine.ts";
import { formatNodeReport, parseNodeReport } from "../../src/boot/init/node-report.ts";
import { parsePlan } from "../../src/boot/init/plan.ts";
import { matchesPattern, parseTargetRule } from "../../src/boot/init/target-rule.ts";
import type { SeededRandom } from "../harness/random.ts";
import { installed } from "../boot/installed.ts";
import { mutate, randomBytes } from "./mutate.ts";

const COMMAND_LINE = Buffer.from(
  'quiet "diskswarm.target=model=A B*,size>=10G" diskswarm.server=http://10.0.0.1:6969 diskswarm.after=kexec diskswarm.memory=32M rd.shell rd.emergency=halt BOOTIF=01-52-54-00-12-34-56 -- x',
);

/** Nothing is thrown; each problem is one line; words have no blank that was not quoted. */
export function fuzzCommandLine(random: SeededRandom): void {
  const text = Buffer.from(mutate(random, COMMAND_LINE)).toString("latin1");
  const { settings, problems } = parseCommandLine(text, ["memory", "linger"]);
  for (const problem of problems) ok(problem.length > 0 && problem.length < 3000);
  ok(settings.server === null || /^https?:\/\/[^/]+$/.test(settings.server));
  ok(settings.torrent === null || /^(https?:|magnet:)/i.test(settings.torrent));
  if (!text.includes('"')) for (const word of splitCommandLine(text)) ok(!/\s/.test(word));
}

/** A rule or a line; what a rule holds has no meaning that its text has not. */
export function fuzzTargetRule(random: SeededRandom): void {
  const valid = Buffer.from("/dev/sda,serial=S3Z8,wwn=0x5000,model=Samsung *?,size>=100G,size<=2T,auto");
  const text = Buffer.from(mutate(random, valid)).toString("latin1");
  const rule = parseTargetRule(text);
  if (typeof rule === "string") return ok(rule.length > 0);
  ok(rule.sizeMinBytes <= rule.sizeMaxBytes && rule.text === text);
  const model = Buffer.from(randomBytes(random, random.below(20))).toString("latin1");
  ok(matchesPattern("*", model) && (!/[*?]/.test(model) ? matchesPattern(model, model) : true));
}

/** A plan or a line. What is accepted is within its bounds and holds no control character. */
export function fuzzPlan(random: SeededRandom): void {
  const valid = Buffer.from(
    '{"version":1,"torrent":"http://10.0.0.1:6969/torrents/a.torrent","target":"auto","after":"reboot","options":{"memory":"32M"}}',
  );
  const plan = parsePlan(mutate(random, valid));
  if (typeof plan === "string") return ok(plan.length > 0 && plan.length < 600);
  ok(/^(https?:|magnet:)/i.test(plan.torrent));
  for (const text of Object.values(plan.options)) ok(!/[\x00-\x1f]/.test(text));
}

/** A report or null; what was read is read the same again. */
export function fuzzNodeReport(random: SeededRandom): void {
  const valid = Buffer.from(
    '{"phase":"progress","message":"fetch","bytesDone":10,"bytesTotal":100,"peers":3,"target":"/dev/sda (X, 10 GiB)"}',
  );
  const report = parseNodeReport(mutate(random, valid));
  if (report !== null) deepStrictEqual(parseNodeReport(Buffer.from(formatNodeReport(report))), report);
}

/** Nothing is thrown; values of quoted lines come back whole. */
export function fuzzEnvironmentFile(random: SeededRandom): void {
  const value = Buffer.from(randomBytes(random, random.below(12)))
    .toString("latin1")
    .replaceAll(/[\n\r]/g, "");
  const quoted = `'${value.replaceAll("'", "'\\''")}'`;
  const line = `A=${quoted}`;
  if (line.trim() === line) deepStrictEqual(parseEnvironmentFile(line).get("A"), value);
  parseEnvironmentFile(Buffer.from(mutate(random, Buffer.from(`${line}\nB="x"\n`))).toString("latin1"));
}

const GRUB = Buffer.from(
  "set x=1\nmenuentry 'A' {\n linux /boot/vmlinuz root=UUID=1 $x ${y}\n initrd /boot/initrd\n}\nmenuentry 'B' {\n linux /b\n}\n",
);
const ENTRY = Buffer.from("title x\nlinux /boot/vmlinuz\ninitrd /boot/initrd $tuned_initrd\noptions root=UUID=1 ro\n");

/** A kernel that is there, or a line. A command line holds nothing that cannot be handed to a program. */
export function fuzzFindKernel(random: SeededRandom): void {
  const isGrub = random.below(2) === 0;
  const text = Buffer.from(mutate(random, isGrub ? GRUB : ENTRY)).toString("latin1");
  const files = {
    [isGrub ? "boot/grub/grub.cfg" : "loader/entries/a.conf"]: text,
    "boot/vmlinuz": "",
    "boot/initrd": "",
  };
  const found = findKernel(installed(files), "UUID=1");
  if (typeof found === "string") return ok(found.length > 0);
  for (const path of [found.kernel, ...found.initrds]) ok(installed(files).exists(path));
  ok(!/[\x00-\x1f\x7f]/.test(found.commandLine));
}

/** Nothing is thrown; an entry that is found is active and in the order. */
export function fuzzBootEntries(random: SeededRandom): void {
  const valid = Buffer.from(
    "BootOrder: 0001,0000\nBoot0000* A\tHD(1,GPT,aa-bb)/File(\\EFI\\a.efi)\nBoot0001  B\tHD(1,GPT,aa-bb)/\\EFI\\b.efi\n",
  );
  const entries = parseBootEntries(Buffer.from(mutate(random, valid)).toString("latin1"));
  const found = entryFor(entries, "AA-BB", "\\EFI\\a.efi");
  ok(found === null || (found.isActive && entries.order.includes(found.number)));
}
