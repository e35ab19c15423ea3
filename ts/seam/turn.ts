/** One turn: what was planned, sending it, and recording its answer. */

import { randomUUID } from "node:crypto";
import { PromptseamError } from "../errors.ts";
import { publish } from "../events.ts";
import { cancellable, type NativePlan, take } from "../native.ts";
import { Prompt } from "../prompt.ts";
import { Artifact } from "../store/store.ts";
import type { Answer } from "../vllm/answer.ts";
import type { Chunk } from "../vllm/chunks.ts";
import type { AnswerFacts } from "../vllm/facts.ts";
import type { CallOptions } from "../vllm/options.ts";
import { buildChat, type ChatMessage, type ChatOptions, type ChatRequest } from "../vllm/requests.ts";
import { AnswerMessage } from "./answer-message.ts";
import type { ChosenHandle, Handles } from "./handles.ts";
import type { ResolvedSeamOptions } from "./options.ts";
import type { Certificate, Drift, EnvironmentField, Outcome, Reason, SampledSpan } from "./outcome.ts";
import type { Read } from "./read.ts";
import type { Records } from "./records.ts";
import { outcomeName, type Tally } from "./stats.ts";

/** What a turn needs of its Seam. */
export interface TurnHost {
  readonly options: ResolvedSeamOptions;
  readonly records: Records;
  readonly handles: Handles;
  readonly tally: Tally;
  /** The server did not take ids. */
  idsIgnored(): void;
}

/** What a turn is made of. */
export interface TurnParts {
  readonly plan: NativePlan;
  readonly read: Read;
  readonly tenant: string;
  /** The tenant's cache salt; empty for none. */
  readonly salt: string;
  readonly conversation: string | undefined;
  readonly project: string | undefined;
  readonly version: number;
  readonly lora: string;
  /** Ids of the artifacts that the turn goes on from, and that its conversation would. */
  readonly from: readonly string[];
  /** Until when what it goes on from may be used, in milliseconds of Unix time. */
  readonly expires: number;
  /** By `performance.now()`. */
  readonly startedMs: number;
}

/** How a turn was recorded. */
export interface Committed {
  /**
   * - `committed`: the conversation goes on from this turn.
   * - `branched`: another turn moved it first; this one is kept beside, found by its history.
   * - `not_durable`: the store failed or was too slow; the answer stands, the conversation is where it was.
   */
  readonly status: "committed" | "branched" | "not_durable";
}

/** What the model answered, from a client of the caller's own. */
export interface TurnAnswer {
  /** The assistant's message as it was parsed, and as it will come back in the history. */
  readonly message: ChatMessage;
  readonly finishReason?: string | null;
  /** The ids that were generated, stop token included. Needed for `history: "sampled"`, and to count drift. */
  readonly sampledIds?: Uint32Array | null;
}

/** Reasons for an end that no model gave: what was said until then is no answer. */
const NOT_ANSWERED = new Set(["abort", "error"]);

/**
 * A planned turn. Send it once: `stream()`, or `prompt` or `body()` with a client of your own and then `commit()` or
 * `abandon()`. A turn that is dropped moves nothing.
 */
export class Turn {
  /**
   * Settles when the turn ended: rejects for one that was cancelled or failed. Never an unhandled rejection.
   */
  readonly committed: Promise<Committed>;
  readonly #host: TurnHost;
  readonly #parts: TurnParts;
  #plan: NativePlan;
  #outcome: Outcome;
  #prefixLength: number;
  #promptLength: number | null;
  #seam: number | null;
  #drift: Drift;
  #wantsCheck: boolean;
  #prompt: Prompt | null | undefined;
  #certificate: Certificate | null | undefined;
  #state: "planned" | "streaming" | "ended" = "planned";
  /** While it is streamed. */
  #answer: Answer | undefined;
  /** How it goes by handle; undefined where it does not. */
  #handle: ChosenHandle | undefined;
  #learned = false;
  #resolve: (committed: Committed) => void = () => {};
  #reject: (error: unknown) => void = () => {};

  /** @internal */
  constructor(host: TurnHost, parts: TurnParts) {
    this.#host = host;
    this.#parts = parts;
    this.#plan = parts.plan;
    const info = parts.plan.info();
    this.#outcome = outcomeOf(info);
    this.#prefixLength = info.prefixLength;
    this.#promptLength = info.promptLength ?? null;
    this.#seam = info.seam ?? null;
    this.#drift = info.drift as Drift;
    this.#wantsCheck = info.wantsCheck;
    this.committed = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.committed.catch(() => {});
    host.tally.planned(this.#outcome, this.#drift);
    publish("turnPlanned", () => ({
      outcome: outcomeName(this.#outcome),
      promptTokens: this.#promptLength,
      prefixTokens: this.#prefixLength,
      drift: this.#drift,
      elapsedMs: performance.now() - parts.startedMs,
    }));
  }

  /** The path it took. Changes where what was planned turned out wrong before it was sent, or ids were ignored. */
  get outcome(): Outcome {
    return this.#outcome;
  }

  /** The prompt's ids; null on the `messages` rung. */
  get prompt(): Prompt | null {
    if (this.#prompt === undefined) {
      const handle = this.#plan.prompt();
      this.#prompt = handle === null ? null : new Prompt(handle);
    }
    return this.#prompt;
  }

  /** Ids taken over from an earlier prompt. */
  get prefixLength(): number {
    return this.#prefixLength;
  }

  /** Ids behind them; 0 on the `messages` rung. */
  get appendedLength(): number {
    return (this.#promptLength ?? this.#prefixLength) - this.#prefixLength;
  }

  /**
   * The seam: how many ids of the prompt the next turn can keep, if its template leaves them as they are. Null where there is
   * none near the prompt's end.
   */
  get seam(): number | null {
    return this.#seam;
  }

  /** How the history form of the last answer stands to the ids that the model sampled. */
  get drift(): Drift {
    return this.#drift;
  }

  /** What binds the continuation; null unless the outcome is `certified_suffix` and goes on from an earlier turn. */
  get certificate(): Certificate | null {
    this.#certificate ??= this.#plan.certificate() ?? null;
    return this.#certificate;
  }

  /** Ids of the prompt that stand for the history form of messages; only with `history: "sampled"`. */
  get sampledSpans(): readonly SampledSpan[] {
    return this.#plan.spans();
  }

  /** What the server said of the answer that was streamed: counts, the way it was sent, handle misses. Null before. */
  get facts(): AnswerFacts | null {
    return this.#answer?.facts ?? null;
  }

  /**
   * The request's body for a client of your own: `chat_ids` has the ids beside the messages
   * (`kv_transfer_params.prompt_token_ids`), `messages` only these.
   *
   * @throws PromptseamError `PS_INVALID_ARGUMENT` for `chat_ids` on the `messages` rung
   */
  async body(
    transport: "chat_ids" | "messages" = this.prompt === null ? "messages" : "chat_ids",
  ): Promise<Buffer> {
    const { prompt } = this;
    if (transport === "chat_ids" && prompt === null)
      throw new PromptseamError("PS_INVALID_ARGUMENT", "This turn has no ids; send its messages.");
    await this.settle();
    const { request, spelled } = this.#outgoing(false);
    const ids = transport === "chat_ids" ? (this.prompt ?? undefined) : undefined;
    const { body } = buildChat(request, {
      prompt: ids,
      sendMessages: true,
      stream: request["stream"] === true,
      spelled,
    });
    return Buffer.from(typeof body === "string" ? body : await body());
  }

  /**
   * Sends the turn and gives its answer chunk by chunk. The turn is recorded before the last chunks are given out. Leaving the
   * loop early abandons it.
   *
   * @throws PromptseamError `PS_INVALID_ARGUMENT` without a client, `PS_CLOSED` for a turn that was sent or ended; then what
   * `client.chat` throws
   */
  stream(options: CallOptions = {}): AsyncGenerator<Chunk, void, void> {
    const chunks = this.#chunks(options);
    let asked = false;
    return {
      next: () => {
        asked = true;
        return chunks.next();
      },
      return: () => {
        // A generator that was never asked does not run its end.
        if (!asked) this.abandon();
        return chunks.return();
      },
      throw: (error) => chunks.throw(error),
      [Symbol.asyncIterator]() {
        return this;
      },
      async [Symbol.asyncDispose]() {
        await this.return();
      },
    };
  }

  async *#chunks(options: CallOptions): AsyncGenerator<Chunk, void, void> {
    const { client } = this.#host.options;
    if (client === undefined)
      throw new PromptseamError(
        "PS_INVALID_ARGUMENT",
        "The Seam has no client: give it one, or send turn.body().",
      );
    this.#begin();
    const started = performance.now();
    const message = new AnswerMessage();
    try {
      await this.#checkCertificate(options.signal);
      if (this.#hasEnded()) return;
      const call = await this.#call(options);
      if (this.#hasEnded()) return;
      let answer = client.chat(...call);
      this.#answer = answer;
      let iterator = answer[Symbol.asyncIterator]();
      let next = iterator.next();
      if (this.#wantsCheck) {
        // The engine's first token nearly always takes longer than this.
        next.catch(() => {});
        // Who only watches has sent the request as it came: nothing is wrong with it.
        if ((await this.#shadowCheck(options.signal)) && this.#host.options.mode === "on") {
          await answer.cancel();
          answer = client.chat(...(await this.#call(options)));
          this.#answer = answer;
          iterator = answer[Symbol.asyncIterator]();
          next = iterator.next();
        }
      }
      const held: Chunk[] = [];
      const { n } = call[0];
      let open = typeof n === "number" && n > 1 ? n : 1;
      for (let { done, value } = await next; !done; { done, value } = await iterator.next()) {
        const chunk = value as Chunk;
        message.add(chunk);
        if (chunk.type === "finish") open--;
        if (held.length > 0 || (chunk.type === "finish" && open === 0)) held.push(chunk);
        else yield chunk;
      }
      this.#learn();
      if (answer.facts.idsIgnored) this.#fellBack("ids_ignored");
      if (this.#hasEnded()) return;
      const { finishReason } = message;
      const sampledIds = answer.facts.sampledIds();
      if (finishReason !== null && NOT_ANSWERED.has(finishReason)) this.#fail(notAnswered(finishReason));
      else await this.#record({ message: message.message(), sampledIds }, started, answer.facts);
      yield* held;
    } catch (error) {
      this.#fail(error);
      throw error;
    } finally {
      if (this.#state !== "ended") {
        this.#fail(new PromptseamError("PS_ABORTED", "The turn was left before its end."));
      }
      await this.#answer?.cancel();
      this.#learn();
    }
  }

  /**
   * Records the answer of a turn that you sent yourself.
   *
   * @throws PromptseamError `PS_CLOSED` for a turn that was streamed or ended, `PS_INVALID_REQUEST` where the message is not an
   * assistant's, `PS_ABORTED` for an answer that the server ended: the turn is abandoned then
   */
  async commit(answer: TurnAnswer): Promise<Committed> {
    this.#begin();
    const { finishReason } = answer;
    if (typeof finishReason === "string" && NOT_ANSWERED.has(finishReason)) {
      const error = notAnswered(finishReason);
      this.#fail(error);
      throw error;
    }
    try {
      return await this.#record(answer, performance.now());
    } catch (error) {
      this.#state = "planned";
      throw error;
    }
  }

  /** Ends a turn that was cancelled or failed: it moves nothing. Idempotent. */
  abandon(reason?: unknown): void {
    if (this.#state === "ended") return;
    this.#fail(new PromptseamError("PS_ABORTED", "The turn was abandoned.", { cause: reason }));
    void this.#answer?.cancel();
  }

  /** Compares the prompt with the full render where that is due. @internal */
  async settle(signal?: AbortSignal): Promise<void> {
    if (this.#wantsCheck) await this.#shadowCheck(signal);
  }

  /** Whether it was abandoned meanwhile. */
  #hasEnded(): boolean {
    return this.#state === "ended";
  }

  #begin(): void {
    if (this.#state !== "planned")
      throw new PromptseamError("PS_CLOSED", "This turn was sent or ended already; prepare another.");
    this.#state = "streaming";
  }

  async #call(options: CallOptions): Promise<[ChatRequest, ChatOptions]> {
    const { mode, sampledIds } = this.#host.options;
    if (mode === "observe") void this.#observe(options.signal);
    const { request, spelled } = this.#outgoing(mode !== "on");
    if (mode === "observe") return [request, { ...options, spelled }];
    const prompt = this.prompt ?? undefined;
    this.#handle = undefined;
    if (prompt !== undefined) {
      const { tenant, lora, from } = this.#parts;
      const key = { tenant, lora, model: request.model, salt: request.cache_salt };
      this.#handle = await this.#host.handles.choose(prompt.length, key, from, options.signal);
    }
    return [request, { ...options, spelled, sampledIds, prompt, handle: this.#handle?.options }];
  }

  /** Tells the Seam, once, what its handles were worth, however the turn ended. */
  #learn(): void {
    const { facts } = this;
    if (this.#handle === undefined || facts === null || this.#learned) return;
    this.#learned = true;
    const { handles, tally } = this.#host;
    if (facts.way === "handle") tally.count("byHandle");
    tally.count("handleMisses", facts.handleMisses);
    handles.answered(this.#handle, facts);
  }

  #outgoing(asSent: boolean): ReturnType<Read["outgoing"]> {
    return this.#parts.read.outgoing(this.#plan, asSent, this.#parts.salt);
  }

  /** Compares what would have been sent with the server's own rendering, for a share of the turns. */
  async #observe(signal: AbortSignal | undefined): Promise<void> {
    const { client, observeShare } = this.#host.options;
    const { prompt } = this;
    if (client === undefined || prompt === null || Math.random() >= observeShare) return;
    try {
      const { request, spelled } = this.#outgoing(false);
      const theirs = await client.render(request, { ...(signal === undefined ? {} : { signal }), spelled });
      const equal = theirs.equals(prompt);
      this.#host.tally.count("observed");
      if (!equal) this.#host.tally.count("observedMismatches");
      publish("turnObserved", () => ({ outcome: outcomeName(this.#outcome), equal }));
    } catch {
      // Watching must not disturb what is watched; the turn itself meets what is wrong with the server.
    }
  }

  async #checkCertificate(signal: AbortSignal | undefined): Promise<void> {
    const { certificate } = this;
    if (certificate === null) return;
    const refused = take(
      this.#plan.check(
        { ...certificate, environment: [...certificate.environment] },
        this.#parts.tenant,
        Date.now(),
      ),
    );
    if (refused === null || refused === undefined) return;
    this.#host.tally.count("refusedCertificates");
    const plan = await cancellable(signal, (cancel) => this.#plan.rendered(refused.reason, cancel));
    this.#replace(plan, refused.field);
  }

  /** Tells whether another prompt is to be sent. */
  async #shadowCheck(signal: AbortSignal | undefined): Promise<boolean> {
    this.#wantsCheck = false;
    this.#host.tally.count("shadowChecks");
    const right = await cancellable(signal, (cancel) => this.#plan.shadowCheck(cancel));
    if (right === null || right === undefined) return false;
    this.#host.tally.count("shadowMismatches");
    publish("shadowMismatch", () => ({ promptTokens: this.#promptLength, prefixTokens: this.#prefixLength }));
    this.#replace(right);
    return true;
  }

  #replace(plan: NativePlan, field?: string | null): void {
    this.#plan = plan;
    const info = plan.info();
    this.#outcome = outcomeOf(field === undefined || field === null ? info : { ...info, field });
    this.#prefixLength = info.prefixLength;
    this.#promptLength = info.promptLength ?? null;
    this.#seam = info.seam ?? null;
    this.#wantsCheck = false;
    this.#prompt = undefined;
    this.#certificate = undefined;
  }

  #fellBack(reason: Reason): void {
    this.#outcome = { kind: "messages", reason };
    if (reason === "ids_ignored") this.#host.idsIgnored();
  }

  async #record(answer: TurnAnswer, started: number, facts?: AnswerFacts): Promise<Committed> {
    const { records, tally, options } = this.#host;
    const { tenant, conversation, project, version } = this.#parts;
    if (typeof answer.message !== "object" || answer.message === null)
      throw new PromptseamError("PS_INVALID_REQUEST", "The message of an answer is an object.");
    let json: string;
    try {
      json = JSON.stringify(answer.message) ?? "null";
    } catch (cause) {
      throw new PromptseamError("PS_INVALID_REQUEST", "The message cannot be written as JSON.", { cause });
    }
    const artifact = new Artifact(take(this.#plan.commit(json, answer.sampledIds ?? null)));
    const calls = answer.message["tool_calls"];
    const toolRound = Array.isArray(calls) && calls.length > 0;
    const expires = Date.now() + (toolRound ? options.toolRoundTtlMs : options.ttlMs);
    const asked = await records.commit({
      tenant,
      conversation,
      project,
      artifact,
      expires,
      version,
      toolRound,
      turn: randomUUID(),
    });
    if (this.#handle !== undefined && facts?.handle)
      this.#host.handles.keep(this.#handle, artifact.id, facts.handle);
    const committed: Committed = { status: asked.ok ? asked.value : "not_durable" };
    this.#state = "ended";
    tally.count(committed.status === "not_durable" ? "notDurable" : committed.status);
    publish("turnCommitted", () => ({ status: committed.status, elapsedMs: performance.now() - started }));
    this.#resolve(committed);
    return committed;
  }

  #fail(error: unknown): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#host.tally.count("abandoned");
    this.#reject(error);
  }
}

function notAnswered(reason: string): PromptseamError {
  return new PromptseamError("PS_ABORTED", `The server ended the answer before its end (${reason}).`);
}

interface OutcomeInfo {
  readonly rung: string;
  readonly reason?: string | null;
  readonly field?: string | null;
  readonly fromToken?: number | null;
}

function outcomeOf({ rung, reason, field, fromToken }: OutcomeInfo): Outcome {
  if (reason === undefined || reason === null) return { kind: "certified_suffix" };
  const kind = rung as "aligned_render" | "full_render" | "messages";
  if (reason === "fingerprint_mismatch") return { kind, reason, field: field as EnvironmentField };
  if (reason === "template_rewrote_history") return { kind, reason, fromToken: fromToken ?? 0 };
  return { kind, reason: reason as Reason };
}
