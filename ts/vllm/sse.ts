/** Server-sent events, parsed on bytes: whatever way the stream is cut, the same events come out. */

import { PromptseamError } from "../errors.ts";

/** Default for the longest event in bytes: an echo of two million token ids fits. */
export const DEFAULT_MAX_EVENT_BYTES = 16 * 1024 * 1024;

const LF = 0x0a;
const CR = 0x0d;
const COLON = 0x3a;
const SPACE = 0x20;
const NOTHING: Uint8Array = new Uint8Array(0);

/** Bytes that grow by doubling, so that appending costs O(1) per byte however small the pieces are. */
class ByteBuffer {
  #bytes: Uint8Array = NOTHING;
  length = 0;

  append(piece: Uint8Array): void {
    const needed = this.length + piece.length;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2, 256));
      grown.set(this.#bytes.subarray(0, this.length));
      this.#bytes = grown;
    }
    this.#bytes.set(piece, this.length);
    this.length = needed;
  }

  /** Hands the bytes over and starts anew; the slice stays valid. */
  take(): Uint8Array {
    const bytes = this.#bytes.subarray(0, this.length);
    this.#bytes = NOTHING;
    this.length = 0;
    return bytes;
  }
}

/**
 * A parser for `text/event-stream` (WHATWG HTML, 9.2): lines end in `\n`, `\r\n` or `\r`, a leading byte order mark is
 * dropped, comments and the fields `event`, `id` and `retry` are skipped, several `data` lines join with `\n`.
 *
 * Give it chunks with {@link push} and take events with {@link next} until it returns null. Work is O(bytes) over the whole
 * stream, also byte by byte: a chunk is searched once, and only an unfinished line is copied.
 */
export class SseParser {
  readonly #maxEventBytes: number;
  #chunk: Uint8Array = NOTHING;
  #position = 0;
  /** Where the next `\n` and `\r` of the chunk lie (its length: none), so that neither is searched for twice. */
  #nextLf = 0;
  #nextCr = 0;
  readonly #line = new ByteBuffer();
  /** The only data line of the event so far; moved to `#joined` when a second one comes. */
  #data: Uint8Array | null = null;
  readonly #joined = new ByteBuffer();
  #lines = 0;
  #afterCr = false;
  #firstLine = true;

  constructor(
    options: { /** Longest event or line, in bytes. Default 16 MiB. */ maxEventBytes?: number } = {},
  ) {
    this.#maxEventBytes = options.maxEventBytes ?? DEFAULT_MAX_EVENT_BYTES;
  }

  /** Adds the next bytes of the stream. The chunk must not be written to afterwards; take all events before the next push. */
  push(chunk: Uint8Array): void {
    if (this.#position < this.#chunk.length) {
      throw new PromptseamError("PS_INTERNAL", "SseParser.push was called before next() returned null.");
    }
    this.#chunk = chunk;
    this.#position = 0;
    this.#nextLf = -1;
    this.#nextCr = -1;
  }

  /**
   * The data of the next event as bytes (a slice of the chunk where it lies in one), or null when more bytes are needed.
   * An event may be empty; one that the stream's end cuts off is never returned.
   *
   * @throws PromptseamError `PS_PROTOCOL` for an event or a line over the limit; the events before it have been returned.
   */
  next(): Uint8Array | null {
    for (;;) {
      const line = this.#nextLine();
      if (line === null) return null;
      if (line.length > 0) this.#field(line);
      else if (this.#lines > 0) return this.#takeEvent();
    }
  }

  /** Whether bytes of an unfinished event are held. */
  get pending(): boolean {
    return this.#line.length > 0 || this.#lines > 0 || this.#position < this.#chunk.length;
  }

  #nextLine(): Uint8Array | null {
    const chunk = this.#chunk;
    if (this.#afterCr && this.#position < chunk.length) {
      this.#afterCr = false;
      if (chunk[this.#position] === LF) this.#position++;
    }
    const start = this.#position;
    if (start >= chunk.length) return null;
    const end = this.#lineEnd(start);
    if (end === chunk.length) {
      this.#checkSize(this.#line.length + (end - start));
      this.#line.append(chunk.subarray(start));
      this.#position = end;
      return null;
    }
    this.#position = end + 1;
    if (chunk[end] === CR) this.#afterCr = true;
    let line = chunk.subarray(start, end);
    if (this.#line.length > 0) {
      this.#line.append(line);
      line = this.#line.take();
    }
    this.#checkSize(line.length);
    if (this.#firstLine) {
      this.#firstLine = false;
      if (line[0] === 0xef && line[1] === 0xbb && line[2] === 0xbf) return line.subarray(3);
    }
    return line;
  }

  #lineEnd(from: number): number {
    if (this.#nextLf < from) this.#nextLf = indexOf(this.#chunk, LF, from);
    if (this.#nextCr < from) this.#nextCr = indexOf(this.#chunk, CR, from);
    return Math.min(this.#nextLf, this.#nextCr);
  }

  #field(line: Uint8Array): void {
    if (!(line[0] === 0x64 && line[1] === 0x61 && line[2] === 0x74 && line[3] === 0x61)) return;
    let value = NOTHING;
    if (line.length > 4) {
      if (line[4] !== COLON) return;
      value = line.subarray(line[5] === SPACE ? 6 : 5);
    }
    if (this.#lines === 0) {
      this.#data = value;
    } else {
      if (this.#data !== null) {
        this.#joined.append(this.#data);
        this.#data = null;
      }
      this.#checkSize(this.#joined.length + 1 + value.length);
      this.#joined.append(NEWLINE);
      this.#joined.append(value);
    }
    this.#lines++;
  }

  #takeEvent(): Uint8Array {
    const data = this.#data ?? this.#joined.take();
    this.#data = null;
    this.#lines = 0;
    return data;
  }

  #checkSize(bytes: number): void {
    if (bytes > this.#maxEventBytes) {
      throw new PromptseamError(
        "PS_PROTOCOL",
        `The stream holds an event of more than ${this.#maxEventBytes} bytes.`,
        { details: { limit: this.#maxEventBytes } },
      );
    }
  }
}

const NEWLINE = Uint8Array.of(LF);

/** Position of `byte` at or after `from`, or the length when there is none. */
function indexOf(bytes: Uint8Array, byte: number, from: number): number {
  const at = bytes.indexOf(byte, from);
  return at === -1 ? bytes.length : at;
}
