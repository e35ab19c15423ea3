/** The Prompt: an immutable sequence of token ids that a model sees, kept in native memory. */

import { abortable } from "./abort.ts";
import { BlockHashes, type BlockHashOptions, nativeBlockHashOptions } from "./block-hashes.ts";
import { PromptseamError } from "./errors.ts";
import { asBuffer, type NativePrompt, native, take } from "./native.ts";

/** Ids that are written in less time than a thread takes to be woken: some 50 µs. */
const WRITTEN_INLINE = 8_192;

/** How one prompt differs from a later one. All counts are token ids. */
export interface PromptDiff {
  /** Ids at the start that both have. */
  readonly commonPrefix: number;
  /** The last append boundary of the earlier prompt within the common prefix; 0 where there is none. */
  readonly boundary: number;
  /** Ids of the earlier prompt after the common prefix. */
  readonly removed: number;
  /** Ids of the later prompt after the common prefix. */
  readonly appended: number;
}

/**
 * An immutable sequence of token ids.
 *
 * It lives in native memory and shares structure with the prompt it grew from, so the turns of a conversation together hold
 * their ids once. V8 is told of its size; `close()` frees it at once rather than at the next collection. A closed prompt
 * still knows its length; every other use is `PS_CLOSED`.
 */
export class Prompt {
  /** How many token ids it has. */
  readonly length: number;
  /** Ids taken over from the prompt it was rendered after; 0 for one made from nothing. */
  readonly reused: number;
  readonly #native: NativePrompt;

  /** @internal Use `model.render` or `Prompt.fromIds`. */
  constructor(handle: NativePrompt) {
    this.#native = handle;
    const [length, reused] = take(handle.lengths());
    this.length = length;
    this.reused = reused;
  }

  /**
   * A prompt of any token ids, without boundaries. O(ids).
   *
   * @throws PromptseamError `PS_INVALID_TOKEN_ID` when an element is not an integer from 0 to 2^32 - 1.
   */
  static fromIds(ids: Uint32Array | readonly number[]): Prompt {
    return new Prompt(native.NativePrompt.fromIds(idArray(ids)));
  }

  /** A copy of the ids. O(length). */
  tokenIds(): Uint32Array {
    return take(this.#native.tokenIds());
  }

  /** This prompt's first `keep` ids (all, when left out) and `ids`, sharing storage. O(ids). */
  continued(ids: Uint32Array | readonly number[], keep = this.length): Prompt {
    return new Prompt(take(this.#native.continued(count(keep, "keep"), idArray(ids))));
  }

  /**
   * The prefix fingerprint of the first `tokens` ids (all, when left out): 32 hexadecimal digits of a rolling XXH3-128 chain
   * over 64-token blocks. O(1). It tells prefixes apart fast; it is no proof that two are the same.
   */
  fingerprint(tokens = this.length): string {
    return take(this.#native.fingerprint(count(tokens, "tokens")));
  }

  /** Whether this prompt begins with the `tokens` ids that have this fingerprint. O(1). */
  hasPrefix(fingerprint: string, tokens: number): boolean {
    return take(this.#native.hasPrefix(fingerprint, count(tokens, "tokens")));
  }

  /** Append boundaries: the counts of ids after which others may be appended without changing one before. O(length). */
  boundaries(): Uint32Array {
    return take(this.#native.boundaries());
  }

  /** How `later` differs from this prompt. O(common prefix) at the speed of memory, less what they share. */
  diff(later: Prompt): PromptDiff {
    return take(this.#native.diff(later.#native));
  }

  /** Whether both have the same ids. */
  equals(other: Prompt): boolean {
    return take(this.#native.equals(other.#native));
  }

  /**
   * The hashes that vLLM's prefix cache has for this prompt's full blocks. Off the event loop where there is much to hash: O(ids)
   * the first time, O(ids since) for a prompt that grew from one whose hashes were asked for.
   *
   * @throws PromptseamError `PS_INVALID_ARGUMENT` when an option is unknown or out of range
   */
  async blockHashes(options: BlockHashOptions): Promise<BlockHashes> {
    const native = nativeBlockHashOptions(options);
    const hashes = await abortable(options.signal, async () => this.#native.blockHashes(native));
    return new BlockHashes(take(hashes), native.blockSize, native.sha256 ? 32 : 16);
  }

  /** Heap bytes of the whole prompt, those it shares included. */
  get bytes(): number {
    return take(this.#native.bytes());
  }

  /** Frees the ids now. May be called again. */
  close(): void {
    this.#native.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  /**
   * The lowercase hex BLAKE3 of the first `tokens` ids (all, when left out) as little-endian 32-bit words. O(tokens), some 40 µs
   * for 30,000.
   */
  hash(tokens = this.length): string {
    return take(this.#native.hash(count(tokens, "tokens")));
  }

  /** @internal The bytes of `before`, the ids from `from` on as a JSON array, and `after`. O(ids written), natively. */
  writeJson(before: string | Uint8Array, after: string | Uint8Array, from = 0): Buffer {
    return take(this.#native.writeJson(before, after, from));
  }

  /** @internal As {@link writeJson}, of what `forSending` has written; else a long prompt is written off the event loop. */
  async toBody(before: string, after: string): Promise<Buffer> {
    const written = this.#native.takeWritten();
    const start = native.ROOM_BEFORE - Buffer.byteLength(before);
    if (written !== null && start >= 0 && Buffer.byteLength(after) <= native.ROOM_AFTER) {
      written.write(before, start);
      const end = written.length - native.ROOM_AFTER;
      return written.subarray(start, end + written.write(after, end));
    }
    if (this.length <= WRITTEN_INLINE) return this.writeJson(before, after);
    return take(await this.#native.writeJsonAside(before, after));
  }

  /** @internal */
  static handle(prompt: Prompt): NativePrompt {
    return prompt.#native;
  }
}

/** @internal One JSON answer or event of a stream without its id lists, and these lists. */
export interface Answer {
  /** The JSON with null in place of every list. */
  readonly json: string;
  /** The prompt's ids: `prompt_token_ids` at the top or in a choice, or `token_ids` or `tokens` at the top. */
  readonly promptTokenIds: Prompt | null;
  /** `token_ids` of each member of `choices`, in their order. */
  readonly tokenIds: readonly (Uint32Array | null)[];
}

/**
 * @internal Takes the id lists out of an answer natively. O(bytes); what is left to parse in JavaScript is as long as its text.
 *
 * @throws PromptseamError `PS_PROTOCOL` when the bytes are not JSON, or a list holds something else than ids.
 */
export function readEvent(data: Uint8Array): Answer {
  const outcome = native.readEvent(asBuffer(data));
  if ("failed" in outcome) throw new PromptseamError("PS_PROTOCOL", outcome.message);
  const prompt = outcome.takePrompt();
  return {
    json: outcome.json,
    promptTokenIds: prompt === null ? null : new Prompt(prompt),
    tokenIds: outcome.takeChoices().map((ids) => ids ?? null),
  };
}

/** @internal Ids as the addon takes them, checked: a typed array would wrap what is out of range. */
export function idArray(ids: Uint32Array | readonly number[]): Uint32Array {
  if (ids instanceof Uint32Array) return ids;
  if (!Array.isArray(ids)) {
    throw new PromptseamError(
      "PS_INVALID_ARGUMENT",
      "Token ids must be a Uint32Array or an array of numbers.",
    );
  }
  const at = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id > 0xffff_ffff);
  if (at !== -1) {
    throw new PromptseamError(
      "PS_INVALID_TOKEN_ID",
      `The element at position ${at} is not a token id (an unsigned 32-bit integer).`,
    );
  }
  return Uint32Array.from(ids);
}

function count(value: number, name: string): number {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
    throw new PromptseamError("PS_INVALID_ARGUMENT", `${name} must be a count of tokens, not ${value}.`);
  }
  return value;
}
