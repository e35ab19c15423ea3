/** Which conversation states the server keeps by handle, and whether it pays to send by handle at all. */

import type { VllmClient } from "../vllm/client.ts";
import type { AnswerFacts } from "../vllm/facts.ts";
import type { HandleOptions, PromptHandle } from "../vllm/handle.ts";
import { MissBreaker } from "./breaker.ts";

/** Prompts of fewer tokens take the server as long by handle as by ids. */
const WORTHWHILE = 4_096;
/** Bytes of prompts that are held for their references; what they share with the store's is counted too. */
const MAX_BYTES = 256 * 1024 * 1024;
/** Bytes of an entry's own. */
const OVERHEAD = 1_000;
/** So many misses in a row mean that the server forgot all, not one. */
const FORGOTTEN_ALL = 2;

/** Whose state of which conversation: what a reference is bound to. */
export interface HandleKey {
  readonly tenant: string;
  readonly lora: string;
  readonly model: string | undefined;
  readonly salt: unknown;
}

/** One turn's way by handle. */
export interface ChosenHandle {
  readonly options: HandleOptions;
  readonly key: HandleKey;
  /** The artifact whose reference is named. */
  readonly from: string | undefined;
}

interface Held {
  readonly handle: PromptHandle;
  readonly bytes: number;
}

/**
 * The references of a Seam, in memory only: after a restart, here or there, a conversation's ids are sent whole once. Each belongs
 * to one artifact, tenant, model, adapter and salt, and to the Seam's one client. Bounded in bytes; the least recently used leave
 * first, and one that was gone on from makes way for the next.
 */
export class Handles {
  readonly #client: VllmClient | undefined;
  readonly #transport: "auto" | "handle" | "chat_ids";
  readonly #breaker = new MissBreaker();
  /** From the least to the most recently used. */
  readonly #held = new Map<string, Held>();
  #bytes = 0;
  #missesInARow = 0;

  constructor(client: VllmClient | undefined, transport: "auto" | "handle" | "chat_ids") {
    this.#client = client;
    this.#transport = transport;
  }

  /**
   * How a prompt of so many tokens goes by handle; undefined where chat ids are better, or the server has none.
   *
   * @param from the artifacts that the turn has most in common with, the best first
   */
  async choose(
    tokens: number,
    key: HandleKey,
    from: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<ChosenHandle | undefined> {
    if (this.#client === undefined || this.#transport === "chat_ids" || this.#breaker.isOpen)
      return undefined;
    if (this.#transport === "auto" && tokens < WORTHWHILE) return undefined;
    try {
      const asked = this.#client.promptHandles(signal === undefined ? {} : { signal });
      if ((await asked) === null) return undefined;
    } catch {
      // The request itself meets what is wrong with the server.
      return undefined;
    }
    const known = from.find((artifact) => this.#held.has(nameOf(key, artifact)));
    const held = known === undefined ? undefined : this.#use(nameOf(key, known));
    return { options: { tenant: key.tenant, from: held?.handle }, key, from: known };
  }

  /** Learns from what became of a request, however it ended. */
  answered({ key, from }: ChosenHandle, facts: AnswerFacts): void {
    if (from === undefined) return;
    const name = nameOf(key, from);
    if (facts.handleMisses > 0) {
      // One that was forgotten meanwhile, by another turn's miss, tells nothing new.
      if (!this.#held.has(name)) return;
      this.#drop(name);
      this.#breaker.note(true);
      this.#missesInARow++;
      if (this.#missesInARow >= FORGOTTEN_ALL) this.#forgetAll();
    } else if (facts.way === "handle") {
      this.#breaker.note(false);
      this.#missesInARow = 0;
    }
  }

  /** Keeps what the server keeps of a turn that was recorded as `artifact`. */
  keep({ key, from }: ChosenHandle, artifact: string, handle: PromptHandle): void {
    if (from !== undefined) this.#drop(nameOf(key, from));
    const name = nameOf(key, artifact);
    this.#drop(name);
    const bytes = handle.prompt.bytes + OVERHEAD;
    this.#held.set(name, { handle, bytes });
    this.#bytes += bytes;
    for (const oldest of this.#held.keys()) {
      if (this.#bytes <= MAX_BYTES) break;
      this.#drop(oldest);
    }
  }

  #use(name: string): Held | undefined {
    const held = this.#held.get(name);
    if (held === undefined) return undefined;
    this.#held.delete(name);
    this.#held.set(name, held);
    return held;
  }

  #drop(name: string): void {
    const held = this.#held.get(name);
    if (held === undefined) return;
    this.#held.delete(name);
    this.#bytes -= held.bytes;
  }

  #forgetAll(): void {
    this.#held.clear();
    this.#bytes = 0;
    this.#missesInARow = 0;
  }
}

/** No two keys have the same name, whatever their parts are called. */
function nameOf({ tenant, lora, model, salt }: HandleKey, artifact: string): string {
  return JSON.stringify([artifact, tenant, lora, model ?? null, salt ?? null]);
}
