/** The names that vLLM's prefix cache has for the blocks of a prompt: how a router knows which server holds a prefix. */

import { PromptseamError } from "./errors.ts";
import type { NativeBlockHashOptions } from "./native.ts";

const PROFILES = ["vllm-sha256-cbor", "vllm-xxhash-cbor"] as const;
const ENCODINGS = ["tagged", "bare"] as const;

/** What block hashes depend on besides the ids. All of it must be as the server has it; nothing of it is guessed. */
export interface BlockHashOptions {
  /** vLLM's `--prefix-caching-hash-algo`: `sha256_cbor` (32 bytes) or `xxhash_cbor` (16 bytes). */
  readonly profile: (typeof PROFILES)[number];
  /** Ids in a block, 1 to 4,096: 16 unless the server is told otherwise, 128 on CPU. Default: 16. */
  readonly blockSize?: number;
  /**
   * The server's `PYTHONHASHSEED`. May be left out for `vllm-sha256-cbor` of a vLLM 0.32 that runs without one; `xxhash_cbor`, and
   * earlier releases, then draw a random seed, which nobody else knows.
   */
  readonly hashSeed?: string;
  /** The request's `cache_salt`, up to 1,000 characters. An empty one counts as none. */
  readonly cacheSalt?: string;
  /**
   * How the server's release hashes the salt and the adapter's name: `tagged`, as vLLM 0.32 does, or `bare`, as releases before do.
   * Default: `tagged`.
   */
  readonly saltEncoding?: (typeof ENCODINGS)[number];
  /** The LoRA adapter that the request asks for, with its path as the server has it (not needed for `bare`). */
  readonly lora?: { readonly name: string; readonly path?: string };
  /** Ends the wait. */
  readonly signal?: AbortSignal;
}

/** The hashes of a prompt's full blocks, in order. */
export class BlockHashes {
  /** How many blocks there are. */
  readonly length: number;
  /** Ids in a block. */
  readonly blockSize: number;
  /** Bytes of one hash: 32 or 16. */
  readonly digestLength: number;
  /** The hashes one behind the other. */
  readonly bytes: Uint8Array;
  readonly #buffer: Buffer;

  /** @internal Use `prompt.blockHashes`. */
  constructor(buffer: Buffer, blockSize: number, digestLength: number) {
    this.#buffer = buffer;
    this.bytes = buffer;
    this.blockSize = blockSize;
    this.digestLength = digestLength;
    this.length = buffer.length / digestLength;
  }

  /** The hash of one block, as a view. Undefined behind the last. */
  digest(index: number): Uint8Array | undefined {
    if (!Number.isInteger(index) || index < 0 || index >= this.length) return undefined;
    return this.#buffer.subarray(index * this.digestLength, (index + 1) * this.digestLength);
  }

  /** The hashes in hexadecimal digits. O(length). */
  hex(): string[] {
    const digits = 2 * this.digestLength;
    const all = this.#buffer.toString("hex");
    return Array.from({ length: this.length }, (_, index) => all.slice(index * digits, (index + 1) * digits));
  }

  /**
   * The hashes as vLLM's KV events carry them (`BlockStored`, `BlockRemoved`): the low 64 bits, which are the last 8 bytes in
   * big-endian order. O(length). A server with `VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES=0` sends the whole hashes, which are {@link bytes}.
   */
  eventHashes(): BigUint64Array {
    const { buffer, byteOffset, byteLength } = this.#buffer;
    const view = new DataView(buffer, byteOffset, byteLength);
    const low = new BigUint64Array(this.length);
    for (let index = 0; index < low.length; index++) {
      low[index] = view.getBigUint64((index + 1) * this.digestLength - 8);
    }
    return low;
  }
}

/** @internal Options as the addon takes them; it checks what is out of range. */
export function nativeBlockHashOptions(options: BlockHashOptions): NativeBlockHashOptions {
  if (typeof options !== "object" || options === null)
    throw invalid("blockHashes takes options, of which profile is needed.");
  const { profile, blockSize = 16, hashSeed, cacheSalt, saltEncoding = "tagged", lora } = options;
  oneOf(PROFILES, profile, "profile");
  oneOf(ENCODINGS, saltEncoding, "saltEncoding");
  if (!Number.isInteger(blockSize) || blockSize < 1 || blockSize > 4_096) {
    throw invalid(`blockSize must be an integer from 1 to 4,096, not ${String(blockSize)}.`);
  }
  return {
    sha256: profile === "vllm-sha256-cbor",
    blockSize,
    tagged: saltEncoding === "tagged",
    ...text("hashSeed", hashSeed),
    ...text("cacheSalt", cacheSalt),
    ...adapter(lora),
  };
}

function adapter(lora: BlockHashOptions["lora"]) {
  if (lora === undefined) return {};
  if (typeof lora?.name !== "string") throw invalid("lora must have a name and, unless bare, a path.");
  return { ...text("loraName", lora.name, "lora.name"), ...text("loraPath", lora.path, "lora.path") };
}

function oneOf(values: readonly string[], value: unknown, name: string): void {
  if (!values.some((one) => one === value)) {
    throw invalid(`${name} must be one of ${values.join(", ")}.`);
  }
}

function text(
  field: "hashSeed" | "cacheSalt" | "loraName" | "loraPath",
  value: unknown,
  name: string = field,
) {
  if (value === undefined) return {};
  if (typeof value !== "string") throw invalid(`${name} must be a string.`);
  // It would be replaced on its way, and vLLM could not hash it either.
  if (!value.isWellFormed())
    throw new PromptseamError("PS_INVALID_UNICODE", `${name} holds a lone surrogate.`);
  return { [field]: value };
}

function invalid(message: string): PromptseamError {
  return new PromptseamError("PS_INVALID_ARGUMENT", message);
}
