/** The raw facts of one answer, kept beside its chunks. */

import type { RequestWay } from "../events.ts";
import type { Usage } from "./chunks.ts";
import type { HandleReference, PromptHandle } from "./handle.ts";
import type { WirePrompt } from "./wire.ts";

/** Token ids that grow by doubling. */
class IdList {
  #ids = new Uint32Array(16);
  #length = 0;

  append(ids: Uint32Array | readonly number[]): void {
    const needed = this.#length + ids.length;
    if (needed > this.#ids.length) {
      const grown = new Uint32Array(Math.max(needed, this.#ids.length * 2));
      grown.set(this.#ids.subarray(0, this.#length));
      this.#ids = grown;
    }
    this.#ids.set(ids, this.#length);
    this.#length = needed;
  }

  copy(): Uint32Array {
    return this.#ids.slice(0, this.#length);
  }
}

/** What the server said about one request, filled in as the answer arrives. */
export class AnswerFacts {
  /** The server's id of the request, as its log and its abort endpoint know it. */
  requestId: string | null = null;
  /** The model's name as the server gives it back. */
  model: string | null = null;
  /** Tokens in the prompt that the engine saw. */
  promptTokens: number | null = null;
  /** The latest count; final once a `usage` chunk came. */
  completionTokens: number | null = null;
  cachedTokens: number | null = null;
  reasoningTokens: number | null = null;
  /** The server's echo of the prompt; only with `sampledIds: "token_ids"` on the chat and completion ways. */
  promptTokenIds: WirePrompt | null = null;
  /**
   * The server did not take the ids that were sent beside the messages (it counted other tokens, or none); that request was
   * aborted before anything of its answer was given out, and sent again as messages.
   */
  idsIgnored = false;
  /** How the request was sent that was answered; null before its first event. */
  way: RequestWay | null = null;
  /**
   * What the server keeps of prompt and answer, to be named in the next request; null where it keeps nothing, before the
   * answer's end, and on every other way than by handle.
   */
  handle: PromptHandle | null = null;
  /** Requests whose handle the server did not have: nothing of them was run, and all ids were sent instead. */
  handleMisses = 0;
  /** @internal */
  reference: HandleReference | null = null;
  /** Requests sent, 1 when nothing was retried or sent another way. */
  attempts = 0;
  /** Milliseconds from the start to the first event. */
  firstTokenMs: number | null = null;
  /** Whether the stream was closed by `[DONE]`, or the answer came whole. */
  complete = false;
  readonly #sampled = new Map<number, IdList>();
  readonly #finished = new Map<number, string>();

  /**
   * The ids that the model generated for a choice, its stop token included; a copy. Null when the server gave none
   * (see `sampledIds` in the options). O(ids).
   */
  sampledIds(index = 0): Uint32Array | null {
    return this.#sampled.get(index)?.copy() ?? null;
  }

  /** Why a choice ended; null while it has not. */
  finishReason(index = 0): string | null {
    return this.#finished.get(index) ?? null;
  }

  /** Choices that ended. */
  get finishedChoices(): number {
    return this.#finished.size;
  }

  /** @internal */
  addSampled(index: number, ids: Uint32Array | readonly number[]): void {
    let list = this.#sampled.get(index);
    if (list === undefined) {
      list = new IdList();
      this.#sampled.set(index, list);
    }
    list.append(ids);
  }

  /** @internal */
  setFinished(index: number, reason: string): void {
    this.#finished.set(index, reason);
  }

  /** Forgets what an aborted request said. @internal */
  startOver(): void {
    this.requestId = null;
    this.model = null;
    this.promptTokens = null;
    this.completionTokens = null;
    this.cachedTokens = null;
    this.reasoningTokens = null;
    this.promptTokenIds = null;
    this.reference = null;
    this.#sampled.clear();
    this.#finished.clear();
  }

  /** @internal */
  setUsage(usage: Usage): void {
    this.promptTokens = usage.promptTokens;
    this.completionTokens = usage.completionTokens;
    this.cachedTokens = usage.cachedTokens ?? this.cachedTokens;
    this.reasoningTokens = usage.reasoningTokens ?? this.reasoningTokens;
  }
}
