/**
 * A block prefix cache as vLLM 0.32 keeps one: full blocks only, chained by their parent, the salt in block 0, at least
 * the last token of a prompt computed again, the least recently used block evicted first.
 */

import { createHash } from "node:crypto";

export class PrefixCache {
  readonly blockSize: number;
  readonly #capacity: number;
  /** Keys of the cached blocks, the least recently used first. */
  readonly #blocks = new Set<string>();
  /** Prompt tokens asked for and found, as vLLM's counters have them. */
  queries = 0;
  hits = 0;

  constructor(options: { blockSize: number; blocks: number }) {
    this.blockSize = options.blockSize;
    this.#capacity = options.blocks;
  }

  /** Tokens of the prompt that are cached; counts the query. O(ids). */
  match(ids: Uint32Array, salt: string | null): number {
    const keys = this.#keys(ids, salt, Math.floor((ids.length - 1) / this.blockSize));
    let found = 0;
    while (found < keys.length && this.#blocks.has(keys[found] as string)) found++;
    this.queries += ids.length;
    this.hits += found * this.blockSize;
    return found * this.blockSize;
  }

  /** Keeps the full blocks of the ids. O(ids). */
  insert(ids: Uint32Array, salt: string | null): void {
    const keys = this.#keys(ids, salt, Math.floor(ids.length / this.blockSize));
    // From the end, so that a block is never younger than its parent and goes before it.
    for (const key of keys.reverse()) {
      this.#blocks.delete(key);
      this.#blocks.add(key);
    }
    for (const key of this.#blocks) {
      if (this.#blocks.size <= this.#capacity) break;
      this.#blocks.delete(key);
    }
  }

  clear(): void {
    this.#blocks.clear();
  }

  get size(): number {
    return this.#blocks.size;
  }

  #keys(ids: Uint32Array, salt: string | null, count: number): string[] {
    const keys: string[] = [];
    let parent = salt === null ? "" : `salt:${salt}`;
    for (let block = 0; block < count; block++) {
      const from = ids.byteOffset + block * this.blockSize * 4;
      const bytes = new Uint8Array(ids.buffer, from, this.blockSize * 4);
      parent = createHash("sha1").update(parent).update(bytes).digest("base64");
      keys.push(parent);
    }
    return keys;
  }
}
