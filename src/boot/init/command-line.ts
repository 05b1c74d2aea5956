/**
 * The kernel's command line as a node reads it: the `diskswarm.*` keys and those of dracut that it honours.
 *
 * A word is quoted as the kernel does it (lib/cmdline.c): a double quote begins and ends a stretch in which blanks
 * part nothing, and goes away around a whole word or a whole value. Of a key given twice the last counts, because a
 * boot menu's editor appends. Pure; whatever is wrong is returned as a line for a person.
 *
 * An unknown key is an error and not a warning: a disk would be overwritten while `diskswarm.taget=` was not heard.
 */
import { parseTargetRule, type TargetRule } from "./target-rule.ts";

export const AFTER_ACTIONS = ["reboot", "poweroff", "kexec", "shell"] as const;
export type AfterAction = (typeof AFTER_ACTIONS)[number];
export const EMERGENCY_ACTIONS = ["reboot", "poweroff", "halt"] as const;
export type EmergencyAction = (typeof EMERGENCY_ACTIONS)[number];

export interface NodeSettings {
  /** Origin such as `http://10.0.0.1:6969`, without a slash at its end. */
  readonly server: string | null;
  /** http(s) URL or magnet link. */
  readonly torrent: string | null;
  readonly target: TargetRule | null;
  readonly after: AfterAction | null;
  /** Public key that the torrent must be signed with, as given. */
  readonly key: string | null;
  readonly debug: boolean;
  /** Options of the deployment by name, such as `memory` to `32M`. */
  readonly options: Readonly<Record<string, string>>;
  /** A shell where nothing else is left to do (dracut's `rd.shell`). */
  readonly shell: boolean;
  /** What to do then instead of waiting (dracut's `rd.emergency`). */
  readonly emergency: EmergencyAction | null;
  /** MAC address of the interface that the firmware booted from (PXELINUX's `BOOTIF`), as `52:54:00:12:34:56`. */
  readonly bootMac: string | null;
}

export interface ParsedCommandLine {
  readonly settings: NodeSettings;
  /** One line for each key that cannot be used; nothing may be written while there is one. */
  readonly problems: readonly string[];
}

const PREFIX = "diskswarm.";
/** Keys of our own; every option of a deployment is one besides. `sha256` is for the scripts that came before. */
const KEYS = ["server", "torrent", "target", "after", "key", "debug", "sha256"] as const;

/** Splits a command line into words, without their quotes. Nothing after a bare `--` is the kernel's. */
export function splitCommandLine(text: string): string[] {
  const words: string[] = [];
  for (const word of text.match(/(?:"[^"]*(?:"|$)|[^\s"])+/g) ?? []) {
    if (word === "--") break;
    words.push(unquote(word));
  }
  return words;
}

function unquote(word: string): string {
  const stripped = word.startsWith('"') ? strip(word) : word;
  const equals = stripped.indexOf("=");
  if (equals < 0 || stripped[equals + 1] !== '"') return stripped;
  return stripped.slice(0, equals + 1) + strip(stripped.slice(equals + 1));
}

/** Without the quote at its start and, where there is one, the quote at its end. */
function strip(text: string): string {
  return text.slice(1, text.length > 1 && text.endsWith('"') ? -1 : undefined);
}

/** Reads the command line. `optionNames`: what a deployment can be told besides, in the form `piece-size`. */
export function parseCommandLine(text: string, optionNames: readonly string[]): ParsedCommandLine {
  const reader = new Reader(optionNames);
  for (const word of splitCommandLine(text)) {
    const equals = word.indexOf("=");
    if (equals < 0) reader.take(word, null);
    else reader.take(word.slice(0, equals), word.slice(equals + 1));
  }
  const { settings, problems } = reader;
  return { settings, problems: [...problems.values()] };
}

type Settings = { -readonly [Key in keyof NodeSettings]: NodeSettings[Key] };

class Reader {
  readonly settings: Settings & { options: Record<string, string> } = {
    server: null,
    torrent: null,
    target: null,
    after: null,
    key: null,
    debug: false,
    options: {},
    shell: false,
    emergency: null,
    bootMac: null,
  };
  /** By key: a later value that is right mends an earlier one that was not. */
  readonly problems = new Map<string, string>();

  constructor(private readonly optionNames: readonly string[]) {}

  take(key: string, value: string | null): void {
    if (key.startsWith(PREFIX)) return this.takeOurs(key.slice(PREFIX.length), value);
    if (key === "rd.shell") this.settings.shell = isOn(value);
    else if (key === "rd.emergency") this.takeEmergency(key, value);
    else if (key === "BOOTIF") this.settings.bootMac = macOfBootif(value ?? "");
  }

  private takeOurs(name: string, value: string | null): void {
    // The kernel takes dashes and underscores of a name as the same.
    const plain = name.replaceAll("_", "-");
    this.problems.delete(plain);
    if (plain === "debug") this.settings.debug = isOn(value);
    else if (!(KEYS as readonly string[]).includes(plain)) this.takeOption(plain, value);
    else if (value === null || value === "") this.problems.set(plain, `${PREFIX}${name} needs a value`);
    else this.takeValue(plain, value);
  }

  /** Its value is looked at with those of the plan. Without one it is a switch. */
  private takeOption(name: string, value: string | null): void {
    if (this.optionNames.includes(name)) this.settings.options[name] = value ?? "1";
    else this.problems.set(name, this.unknown(name));
  }

  private takeValue(name: string, value: string): void {
    const bad = (expected: string) =>
      void this.problems.set(name, `${PREFIX}${name} is "${value}" but must be ${expected}`);
    switch (name) {
      case "server":
        this.settings.server = originOf(value);
        if (this.settings.server === null) bad("the server's URL such as http://10.0.0.1:6969");
        return;
      case "torrent":
        if (isHttpUrl(value) || value.startsWith("magnet:?")) this.settings.torrent = value;
        else bad("an http or https URL, or a magnet link");
        return;
      case "target": {
        const rule = parseTargetRule(value);
        if (typeof rule === "string") this.problems.set(name, `${PREFIX}target: ${rule}`);
        else this.settings.target = rule;
        return;
      }
      case "after":
        this.settings.after = AFTER_ACTIONS.find((action) => action === value) ?? null;
        if (this.settings.after === null) bad(`one of ${AFTER_ACTIONS.join(", ")}`);
        return;
      case "key":
        this.settings.key = value;
        return;
    }
  }

  private takeEmergency(key: string, value: string | null): void {
    this.settings.emergency = EMERGENCY_ACTIONS.find((action) => action === value) ?? null;
    if (this.settings.emergency !== null) this.problems.delete(key);
    else this.problems.set(key, `${key} is "${value ?? ""}" but must be one of ${EMERGENCY_ACTIONS.join(", ")}`);
  }

  private unknown(name: string): string {
    const known = [...new Set([...KEYS, ...this.optionNames])].map((key) => PREFIX + key).join(", ");
    return `the kernel command line has ${PREFIX}${name}, which is not known; known are ${known}`;
  }
}

function isOn(value: string | null): boolean {
  return value === null || !/^(0|no|off|false)$/i.test(value);
}

function isHttpUrl(text: string): boolean {
  return URL.canParse(text) && /^https?:$/.test(new URL(text).protocol) && new URL(text).hostname !== "";
}

/** The origin of a server's URL; a bare `10.0.0.1` or `10.0.0.1:6969` is taken for http, on diskswarm's port. */
function originOf(text: string): string | null {
  if (isHttpUrl(text)) return new URL(text).origin;
  if (text.includes("/")) return null;
  const match = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?$/i.exec(text);
  const url = match === null ? "" : `http://${match[1]}${match[2] ?? `:${SERVER_PORT}`}`;
  return isHttpUrl(url) ? new URL(url).origin : null;
}

/** What `serve` listens on unless it is told otherwise. */
export const SERVER_PORT = 6969;

/** `01-52-54-00-12-34-56` (hardware type first) or `52:54:00:12:34:56`; null where it is neither, or no interface's own. */
export function macOfBootif(text: string): string | null {
  const match = /^(?:01[-:])?([0-9a-f][02468ace][-:](?:[0-9a-f]{2}[-:]){4}[0-9a-f]{2})$/i.exec(text);
  return match ? match[1]!.replaceAll("-", ":").toLowerCase() : null;
}
