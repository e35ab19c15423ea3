/** One generating request and its answer: an async iterable of chunks that owns the connection while it is read. */

import { setTimeout as sleep } from "node:timers/promises";
import { abortable } from "../abort.ts";
import { PromptseamError } from "../errors.ts";
import { publish } from "../events.ts";
import { type Reading, readAnswer } from "./answer-reader.ts";
import type { Chunk } from "./chunks.ts";
import { AnswerFacts } from "./facts.ts";
import { contentTypeError, truncatedError } from "./failure.ts";
import { Guard } from "./guard.ts";
import type { ResolvedOptions } from "./options.ts";
import type { BuiltRequest } from "./requests.ts";
import { SseParser } from "./sse.ts";
import type { Exchange, Transport } from "./transport.ts";

/** A tool call put together from its chunks. */
export interface ToolCall {
  readonly id: string | null;
  readonly name: string;
  /** JSON text as the model wrote it; not parsed, since models write broken JSON too. */
  readonly arguments: string;
}

/** A whole answer (its first choice). */
export interface CollectedAnswer {
  readonly text: string;
  readonly reasoning: string;
  readonly toolCalls: readonly ToolCall[];
  /** Null only when the server ended the choice without saying why. */
  readonly finishReason: string | null;
  readonly facts: AnswerFacts;
}

/** What an answer needs of its client. @internal */
export interface AnswerContext {
  readonly transport: Transport;
  readonly options: ResolvedOptions;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal | undefined;
  readonly redact: (text: string) => string;
  /** Tells the client which guards to stop when it closes. */
  readonly guards: Set<Guard>;
  /** Throws when the client was closed. */
  readonly checkOpen: () => void;
  /** Rejects when the prompt leaves the server no room for an answer. */
  readonly checkLength: () => Promise<void>;
  /** Told of every failure. */
  readonly onError: (error: unknown) => void;
}

/** Thrown inside an attempt whose server did not take the ids. */
class IdsIgnored extends Error {}

let lastId = 0;

/** The next id for the diagnostics channels. */
export function nextRequestId(): number {
  lastId++;
  return lastId;
}

/**
 * The answer to one request. Nothing is sent before the first chunk is asked for; then the connection belongs to this
 * answer until its end. It is read by pulling: who does not read slows the server down, not fill the memory.
 *
 * Leaving the loop early (`break`, `return`, a throw), {@link cancel} and the call's `signal` close the connection, upon
 * which vLLM drops the request.
 *
 * The stream is whole when every choice has its finish reason: a connection that ends after that, without `[DONE]`, is no
 * error (`facts.complete` is then false); one that ends before is `PS_STREAM_TRUNCATED`, `[DONE]` or not.
 */
export class Answer implements AsyncIterable<Chunk>, AsyncDisposable {
  /** What the server said beside the content, filled in as chunks arrive. */
  readonly facts = new AnswerFacts();
  readonly #request: BuiltRequest;
  readonly #context: AnswerContext;
  readonly #id = nextRequestId();
  #iterator: AnswerIterator | null = null;
  #cancelled = false;

  /** @internal */
  constructor(request: BuiltRequest, context: AnswerContext) {
    this.#request = request;
    this.#context = context;
  }

  /** Length of the request's body. */
  get bodyBytes(): number {
    const { body } = this.#request;
    return typeof body === "string" ? Buffer.byteLength(body) : body.length;
  }

  /** The chunks; can be asked for once. @throws PromptseamError `PS_CLOSED` the second time */
  [Symbol.asyncIterator](): AsyncIterator<Chunk, void, void> {
    if (this.#iterator !== null || this.#cancelled) {
      throw new PromptseamError(
        "PS_CLOSED",
        "This answer was read or cancelled already; send the request again.",
      );
    }
    this.#iterator = new AnswerIterator(this.#request, this.#context, this.facts, this.#id);
    return this.#iterator;
  }

  /** Stops the request. A read that waits rejects with `PS_ABORTED`. Idempotent. */
  async cancel(): Promise<void> {
    this.#cancelled = true;
    await this.#iterator?.return();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cancel();
  }

  /** Reads to the end and puts the first choice together. */
  async collect(): Promise<CollectedAnswer> {
    let text = "";
    let reasoning = "";
    const calls: { id: string | null; name: string; arguments: string }[] = [];
    for await (const chunk of this) {
      if (!("index" in chunk) || chunk.index !== 0) continue;
      if (chunk.type === "text") text += chunk.text;
      else if (chunk.type === "reasoning") reasoning += chunk.text;
      else if (chunk.type === "toolCall") {
        calls[chunk.call] ??= { id: null, name: "", arguments: "" };
        const call = calls[chunk.call] as (typeof calls)[number];
        call.id ??= chunk.id;
        call.name += chunk.name ?? "";
        call.arguments += chunk.arguments;
      }
    }
    const toolCalls = calls.filter((call) => call !== undefined);
    return { text, reasoning, toolCalls, finishReason: this.facts.finishReason(), facts: this.facts };
  }
}

/** Runs the request. `return` works also while a read waits, which a bare async generator cannot. */
class AnswerIterator implements AsyncIterator<Chunk, void, void> {
  #request: BuiltRequest;
  readonly #context: AnswerContext;
  readonly #facts: AnswerFacts;
  readonly #id: number;
  readonly #guard: Guard;
  readonly #chunks: AsyncGenerator<Chunk, void, void>;
  #reading = 0;
  #startedAt = 0;

  constructor(request: BuiltRequest, context: AnswerContext, facts: AnswerFacts, id: number) {
    this.#request = request;
    this.#context = context;
    this.#facts = facts;
    this.#id = id;
    this.#guard = new Guard(context.signal);
    this.#chunks = this.#run();
  }

  async next(): Promise<IteratorResult<Chunk, void>> {
    this.#reading++;
    try {
      return await this.#chunks.next();
    } finally {
      this.#reading--;
    }
  }

  async return(): Promise<IteratorResult<Chunk, void>> {
    if (this.#reading > 0) {
      this.#guard.stop(new PromptseamError("PS_ABORTED", "The answer was cancelled by its reader."));
    }
    const result = await this.#chunks.return();
    this.#guard.dispose();
    return result;
  }

  async *#run(): AsyncGenerator<Chunk, void, void> {
    const { guards, options } = this.#context;
    this.#startedAt = performance.now();
    this.#publishStart();
    guards.add(this.#guard);
    let whole = false;
    let failed = false;
    try {
      this.#context.checkOpen();
      await abortable(this.#guard.signal, this.#context.checkLength).catch((error) => {
        throw this.#guard.failure ?? error;
      });
      for (let retries = 0; ; ) {
        this.#facts.attempts++;
        try {
          yield* this.#attempt();
          break;
        } catch (error) {
          this.#context.onError(error);
          if (error instanceof IdsIgnored) {
            this.#sendMessages();
            continue;
          }
          if (retries >= options.retries || !this.#mayRetry(error)) throw error;
        }
        await this.#backOff(options.retryDelayMs * 2 ** retries++);
      }
      whole = true;
    } catch (error) {
      failed = true;
      this.#publishError(error);
      throw error;
    } finally {
      guards.delete(this.#guard);
      this.#guard.dispose();
      if (!failed) this.#publishEnd(!whole);
    }
  }

  async *#attempt(): AsyncGenerator<Chunk, void, void> {
    const { transport, options, headers } = this.#context;
    const { path, body, stream } = this.#request;
    const guard = this.#guard;
    if (stream) guard.setDeadline("first_token", options.timeouts.firstTokenMs);
    else guard.setDeadline("answer", options.timeouts.answerMs);
    const exchange = await transport.send(
      {
        method: "POST",
        path,
        body,
        headers: { accept: stream ? "text/event-stream" : "application/json", ...headers },
      },
      guard,
    );
    try {
      if (exchange.status !== 200) throw await exchange.toError(this.#context.redact);
      yield* stream ? this.#readStream(exchange) : this.#readWhole(exchange);
    } finally {
      guard.clearDeadline();
      exchange.close();
    }
  }

  async *#readWhole(exchange: Exchange): AsyncGenerator<Chunk, void, void> {
    if (!exchange.contentType.includes("json")) throw contentTypeError("JSON", exchange.contentType);
    const data = await exchange.readAll(this.#context.options.maxAnswerBytes);
    this.#guard.clearDeadline();
    const chunks = readAnswer(data, this.#facts, this.#reader(true));
    this.#checkIds();
    if (!this.#ended)
      throw new PromptseamError("PS_PROTOCOL", "The server's JSON is not an answer to this request.");
    this.#facts.complete = true;
    yield this.#start();
    yield* chunks;
  }

  async *#readStream(exchange: Exchange): AsyncGenerator<Chunk, void, void> {
    if (!exchange.contentType.includes("text/event-stream")) {
      throw contentTypeError("an event stream", exchange.contentType);
    }
    const { options } = this.#context;
    const parser = new SseParser({ maxEventBytes: options.maxEventBytes });
    const reader = this.#reader(false);
    for (;;) {
      const data = parser.next();
      if (data === null) {
        if (!this.#guard.hasDeadline)
          this.#guard.setDeadline("between_tokens", options.timeouts.betweenTokensMs);
        const bytes = await this.#readBytes(exchange);
        if (bytes === null) return;
        parser.push(bytes);
        continue;
      }
      if (data.length === 0) continue;
      this.#guard.clearDeadline();
      if (isDone(data)) {
        if (!this.#ended) throw truncatedError();
        this.#facts.complete = true;
        exchange.drain();
        return;
      }
      const chunks = readAnswer(data, this.#facts, reader);
      if (this.#facts.firstTokenMs === null) {
        this.#checkIds();
        yield this.#start();
      }
      for (const chunk of chunks) {
        yield chunk;
        this.#guard.check();
      }
    }
  }

  /** The next bytes; null when the stream ended and nothing is missing but its formal end. */
  async #readBytes(exchange: Exchange): Promise<Uint8Array | null> {
    let bytes: Uint8Array | null;
    try {
      bytes = await exchange.read();
    } catch (error) {
      if (this.#guard.failure !== null) throw error;
      if (this.#ended) return null;
      throw this.#facts.firstTokenMs === null ? error : truncatedError(error);
    }
    if (bytes === null && !this.#ended) throw truncatedError();
    return bytes;
  }

  /** Ids beside messages may be ignored; the count of tokens that the engine saw tells. */
  #checkIds(): void {
    const { asMessages, promptTokens, standIn } = this.#request;
    if (asMessages === null) return;
    const seen = this.#facts.promptTokens;
    if (seen === null ? standIn : seen !== promptTokens) throw new IdsIgnored();
  }

  get #ended(): boolean {
    return this.#facts.finishedChoices >= this.#request.choices;
  }

  #reader(whole: boolean): Reading {
    return { whole, logprobs: this.#request.logprobs, redact: this.#context.redact };
  }

  #start(): Chunk {
    const elapsedMs = performance.now() - this.#startedAt;
    this.#facts.firstTokenMs = elapsedMs;
    publish("requestFirstToken", () => ({ id: this.#id, elapsedMs, attempt: this.#facts.attempts }));
    return { type: "start", requestId: this.#facts.requestId, promptTokens: this.#facts.promptTokens };
  }

  #mayRetry(error: unknown): boolean {
    return (
      PromptseamError.isInstance(error) &&
      error.details.retryable === true &&
      this.#facts.firstTokenMs === null &&
      this.#guard.failure === null
    );
  }

  /** The request that was under way is aborted by now: its exchange is closed. */
  #sendMessages(): void {
    if (this.#request.asMessages === null) throw new Error("only requests with messages are checked");
    this.#request = this.#request.asMessages();
    this.#facts.startOver();
    this.#facts.idsIgnored = true;
  }

  async #backOff(longestMs: number): Promise<void> {
    const ms = longestMs * (0.5 + Math.random() / 2);
    try {
      await sleep(ms, undefined, { signal: this.#guard.signal });
    } catch (error) {
      throw this.#guard.failure ?? error;
    }
  }

  #publishStart(): void {
    const { way, path, body, promptTokens, stream } = this.#request;
    publish("requestStart", () => ({
      id: this.#id,
      way,
      method: "POST",
      path,
      bodyBytes: typeof body === "string" ? Buffer.byteLength(body) : body.length,
      promptTokens,
      stream,
    }));
  }

  #publishError(error: unknown): void {
    publish("requestError", () => ({
      id: this.#id,
      elapsedMs: performance.now() - this.#startedAt,
      attempts: this.#facts.attempts,
      code: PromptseamError.isInstance(error) ? error.code : "PS_INTERNAL",
      status: PromptseamError.isInstance(error) ? (error.details.status ?? null) : null,
    }));
  }

  #publishEnd(cancelled: boolean): void {
    const { firstTokenMs, attempts, idsIgnored, promptTokens, cachedTokens, completionTokens } = this.#facts;
    publish("requestEnd", () => ({
      id: this.#id,
      elapsedMs: performance.now() - this.#startedAt,
      firstTokenMs,
      attempts,
      cancelled,
      idsIgnored,
      promptTokens,
      cachedTokens,
      completionTokens,
    }));
  }
}

/** `[DONE]`, the event that closes a stream. */
function isDone(data: Uint8Array): boolean {
  return (
    data.length === 6 &&
    data[0] === 0x5b &&
    data[1] === 0x44 &&
    data[2] === 0x4f &&
    data[3] === 0x4e &&
    data[4] === 0x45 &&
    data[5] === 0x5d
  );
}
