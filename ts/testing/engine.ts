/** The simulated engine: what it costs to answer, what it has cached, what it says. */

import { setTimeout as sleep } from "node:timers/promises";
import type { TestModel } from "./model.ts";
import { PrefixCache } from "./prefix-cache.ts";
import { playScript, type Sampled, type ScriptedAnswer } from "./script.ts";

/** What an engine is like. */
export interface EngineOptions {
  /** Tokens in a block of the prefix cache. Default 16, as vLLM's on a GPU. */
  readonly blockSize?: number;
  /** Blocks that the cache holds. Default 65,536. */
  readonly cacheBlocks?: number;
  /** Milliseconds of prefill for each 1,000 prompt tokens that are not cached. Default 0. */
  readonly prefillMsPer1000?: number;
  /** Milliseconds before the first token of any request. Default 0. */
  readonly overheadMs?: number;
}

/** A request as the engine sees it. */
export interface EngineRequest {
  readonly ids: Uint32Array;
  readonly salt: string | null;
  readonly maxTokens: number;
  readonly script: ScriptedAnswer;
}

/** One generation: known before its first token. */
export interface Generation {
  readonly cachedTokens: number;
  readonly sampled: Sampled;
}

export class Engine {
  readonly cache: PrefixCache;
  readonly #model: TestModel;
  readonly #prefillMsPer1000: number;
  readonly #overheadMs: number;

  constructor(model: TestModel, options: EngineOptions) {
    this.#model = model;
    this.cache = new PrefixCache({
      blockSize: options.blockSize ?? 16,
      blocks: options.cacheBlocks ?? 65_536,
    });
    this.#prefillMsPer1000 = options.prefillMsPer1000 ?? 0;
    this.#overheadMs = options.overheadMs ?? 0;
  }

  /** Prefills, and decides what will be sampled. Takes as long as the prefill is told to. */
  async start(request: EngineRequest): Promise<Generation> {
    const { ids, salt, script } = request;
    const cachedTokens = this.cache.match(ids, salt);
    const prefill = ((ids.length - cachedTokens) / 1000) * this.#prefillMsPer1000;
    const delay = this.#overheadMs + prefill + (script.firstTokenDelayMs ?? 0);
    if (delay > 0) await sleep(delay);
    const sampled = await playScript(script, this.#model, request.maxTokens);
    this.cache.insert(ids, salt);
    return { cachedTokens, sampled };
  }
}
