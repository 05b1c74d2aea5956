/**
 * Reads a domain log, the map that partclone's `-D` writes and GNU ddrescue reads: lines of position, size and
 * `+` (used) or `?` (not used), from the filesystem's first byte to its last without a gap.
 *
 * A parser of bytes, incremental and of constant memory: runs are told as they come. A map decides what is
 * not copied, so nothing is guessed: a line that does not follow from the one before it, or an end that is not
 * the one that its head announces (a map that was cut off), is a fault.
 */

export class DomainMapFault extends Error {
  override readonly name = "DomainMapFault";
}

/** `0x` and 16 digits twice, a sign and blanks are far less. Comments may name long paths: they are skipped. */
const LINE_BYTES_MAX = 128;
const LINE_FEED = 0x0a;
const COMMENT = 0x23;
const BLANK = 0x20;
const TAB = 0x09;
const USED = 0x2b;
const UNUSED = 0x3f;

export class DomainMapParser {
  readonly #line = new Uint8Array(LINE_BYTES_MAX);
  #lineBytes = 0;
  #inComment = false;
  /** Next byte of the line that is looked at. */
  #at = 0;
  /** What the map's head says where it ends; negative before it was read. */
  #announcedEndBytes = -1;
  #endBytes = 0;
  #usedBytes = 0;
  #runCount = 0;

  /** `used` hears the used runs, ascending. */
  constructor(readonly used: (offsetBytes: number, lengthBytes: number) => void) {}

  /** The map says something about the bytes below. */
  get endBytes(): number {
    return this.#endBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Runs, used or not. */
  get runCount(): number {
    return this.#runCount;
  }

  push(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i];
      if (byte === LINE_FEED) this.#endLine();
      else if (this.#inComment) continue;
      else if (byte === COMMENT && this.#lineBytes === 0) this.#inComment = true;
      else if (this.#lineBytes === LINE_BYTES_MAX) throw new DomainMapFault("a line is too long");
      else this.#line[this.#lineBytes++] = byte;
    }
  }

  /** To be called once, after the last byte. */
  finish(): void {
    if (this.#lineBytes > 0 || this.#inComment) throw new DomainMapFault("its last line is cut off");
    if (this.#announcedEndBytes < 0) throw new DomainMapFault("it is empty");
    if (this.#endBytes !== this.#announcedEndBytes)
      throw new DomainMapFault(`it ends at byte ${this.#endBytes} and announced ${this.#announcedEndBytes}`);
  }

  #endLine(): void {
    if (this.#inComment || this.#lineBytes === 0) {
      this.#inComment = false;
      this.#lineBytes = 0;
      return;
    }
    this.#at = 0;
    if (this.#announcedEndBytes < 0) this.#readHead();
    else this.#readRun();
    this.#lineBytes = 0;
  }

  /** Current position and status: partclone names the map's end there. */
  #readHead(): void {
    const endBytes = this.#readNumber();
    this.#readStatus();
    this.#announcedEndBytes = endBytes;
  }

  #readRun(): void {
    const offsetBytes = this.#readNumber();
    const lengthBytes = this.#readNumber();
    const status = this.#readStatus();
    if (offsetBytes !== this.#endBytes)
      throw new DomainMapFault(`a run starts at byte ${offsetBytes} where ${this.#endBytes} was due`);
    if (lengthBytes === 0) throw new DomainMapFault(`the run at byte ${offsetBytes} is empty`);
    this.#endBytes += lengthBytes;
    if (this.#endBytes > this.#announcedEndBytes)
      throw new DomainMapFault(`it goes on beyond byte ${this.#announcedEndBytes}, its announced end`);
    this.#runCount++;
    if (status !== USED) return;
    this.#usedBytes += lengthBytes;
    this.used(offsetBytes, lengthBytes);
  }

  /** A hexadecimal number with its `0x`, and the blanks after it. */
  #readNumber(): number {
    const line = this.#line;
    if (line[this.#at] !== 0x30 || (line[this.#at + 1] | 0x20) !== 0x78) throw this.#badLine();
    this.#at += 2;
    const start = this.#at;
    let value = 0;
    for (; this.#at < this.#lineBytes; this.#at++) {
      const digit = hexDigit(line[this.#at]);
      if (digit < 0) break;
      value = value * 16 + digit;
    }
    if (this.#at === start || !Number.isSafeInteger(value)) throw this.#badLine();
    if (!this.#skipBlanks()) throw this.#badLine();
    return value;
  }

  /** `+` or `?`, and nothing after it but blanks. ddrescue's other signs say that a disk could not be read. */
  #readStatus(): number {
    const status = this.#line[this.#at];
    if (this.#at >= this.#lineBytes || (status !== USED && status !== UNUSED)) throw this.#badLine();
    this.#at++;
    this.#skipBlanks();
    if (this.#at !== this.#lineBytes) throw this.#badLine();
    return status;
  }

  #skipBlanks(): boolean {
    const start = this.#at;
    while (this.#at < this.#lineBytes && (this.#line[this.#at] === BLANK || this.#line[this.#at] === TAB)) this.#at++;
    return this.#at > start;
  }

  #badLine(): DomainMapFault {
    const text = Buffer.from(this.#line.subarray(0, Math.min(this.#lineBytes, 48))).toString("latin1");
    return new DomainMapFault(`it has the line ${JSON.stringify(text.replace(/[^ -~]/g, "?"))}`);
  }
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}
