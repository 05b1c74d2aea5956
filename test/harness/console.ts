/**
 * A machine's serial console as a person at it would use it: read until some text stands there, type an answer. What
 * firmware, loaders and kernels draw with escape sequences is taken away, so that a test sees words alone.
 */
import type { Socket } from "node:net";

/** What is looked for and by when; a text that means defeat ends the wait at once. */
export interface WaitOptions {
  readonly timeoutMs?: number;
  readonly unless?: RegExp;
}

/** Machines here have no KVM and share their cores: this is for the tests that hang, not a measure of anything. */
const WAIT_MS = 5 * 60_000;
const TAIL_BYTES = 3_000;
const PANIC = /Kernel panic - not syncing/;
// Control sequences, character sets, and single-character escapes of a VT100 (ECMA-48).
const ESCAPES = /\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-Za-z0-9]|[A-Za-z0-9=>])/g;

export class Console {
  readonly #socket: Socket;
  readonly #startMs = performance.now();
  readonly #decoder = new TextDecoder();
  readonly #watchers = new Set<() => void>();
  #text = "";
  /** Where the next wait begins: right after what the last one found. */
  #seen = 0;
  #isClosed = false;

  constructor(
    readonly name: string,
    socket: Socket,
  ) {
    this.#socket = socket;
    socket.on("data", (bytes: Buffer) => this.#append(this.#decoder.decode(bytes, { stream: true })));
    const close = () => {
      this.#isClosed = true;
      this.#wake();
    };
    socket.on("error", close);
    socket.on("close", close);
  }

  /** All of it so far. */
  get text(): string {
    return clean(this.#text);
  }

  /** What came after the text that was last waited for. */
  get unread(): string {
    return clean(this.#text.slice(this.#seen));
  }

  get tail(): string {
    return this.text.slice(-TAIL_BYTES);
  }

  type(text: string): void {
    this.#socket.write(text);
  }

  /** Skips what was written so far. */
  skip(): void {
    this.#seen = this.#text.length;
  }

  /** Resolves with the match when the text appears after what was waited for before. */
  waitFor(pattern: RegExp, options: WaitOptions = {}): Promise<RegExpExecArray> {
    const { timeoutMs = WAIT_MS, unless = PANIC } = options;
    return new Promise((resolve, reject) => {
      const end = (settle: () => void) => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        settle();
      };
      const fail = (why: string) => end(() => reject(this.#failure(pattern, why)));
      const timer = setTimeout(() => fail(`did not come within ${timeoutMs / 1000} s`), timeoutMs);
      const look = () => {
        const text = this.unread;
        const found = pattern.exec(text);
        if (found) {
          this.#consume(found);
          end(() => resolve(found));
        } else if (unless.test(text)) fail(`did not come, but ${unless.exec(text)![0]}`);
        else if (this.#isClosed) fail("did not come before the machine ended");
      };
      this.#watchers.add(look);
      look();
    });
  }

  /** Seconds since the machine was switched on. */
  get seconds(): number {
    return (performance.now() - this.#startMs) / 1000;
  }

  #consume(found: RegExpExecArray): void {
    // Positions are of the cleaned text: what is behind the match is kept, and cleaning it twice changes nothing.
    const rest = this.unread.slice(found.index + found[0].length);
    this.#text = this.#text.slice(0, this.#seen) + this.unread.slice(0, found.index + found[0].length);
    this.#seen = this.#text.length;
    this.#text += rest;
  }

  #failure(pattern: RegExp, why: string): Error {
    return new Error(`${this.name}: ${pattern} ${why}. The console's end:\n${this.tail}`);
  }

  #append(text: string): void {
    this.#text += text;
    this.#wake();
  }

  #wake(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }
}

function clean(text: string): string {
  return text.replace(ESCAPES, "").replace(/\r+\n?/g, "\n");
}
