/** One generating request and its answer: an async iterable of chunks that owns the connection while it is read. */

import { PromptseamError } from "../errors.ts";
import { publish } from "../events.ts";
import { type Reading, readAnswer } from "./answer-reader.ts";
import type { Chunk } from "./chunks.ts";
import { AnswerFacts } from "./facts.ts";
import { contentTypeError, isServerError, truncatedError } from "./failure.ts";
import { Guard } from "./guard.ts";
import { heldBy, isHandleMiss, isRouteRefusal, mayBeMissing } from "./handle.ts";
import type { JsonValue } from "./json.ts";
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

/** What every call needs of its client. @internal */
export interface CallHost {
  readonly transport: Transport;
  /** Tells the client which guards to stop when it closes. */
  readonly guards: Set<Guard>;
  /** Takes out of a server's message what must not stand in an error: secrets, and passages of `content`. */
  redact(message: string, content: JsonValue | undefined): string;
  /** Throws when the client was closed. */
  checkOpen(): void;
  /** Throws, or rejects where it must ask first, when the prompt leaves the server no room for an answer. */
  checkLength(request: BuiltRequest): Promise<void> | undefined;
  /** Told of every failure. */
  onError(error: unknown): void;
  /** The server has no route for prompt handles. */
  noHandles(): void;
}

/** What one call asked for. @internal */
export interface AnswerCall {
  readonly options: ResolvedOptions;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal | undefined;
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
  readonly #host: CallHost;
  readonly #call: AnswerCall;
  #iterator: AnswerIterator | null = null;
  #cancelled = false;

  /** @internal */
  constructor(request: BuiltRequest, host: CallHost, call: AnswerCall) {
    this.#request = request;
    this.#host = host;
    this.#call = call;
  }

  /** Length of the request's body, that of the latest one where several were sent; null before the first. */
  get bodyBytes(): number | null {
    return this.#iterator?.bodyBytes ?? null;
  }

  /** The chunks; can be asked for once. @throws PromptseamError `PS_CLOSED` the second time */
  [Symbol.asyncIterator](): AsyncIterator<Chunk, void, void> {
    if (this.#iterator !== null || this.#cancelled) {
      throw new PromptseamError(
        "PS_CLOSED",
        "This answer was read or cancelled already; send the request again.",
      );
    }
    this.#iterator = new AnswerIterator(this.#request, this.#host, this.#call, this.facts);
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
  readonly #host: CallHost;
  readonly #call: AnswerCall;
  readonly #facts: AnswerFacts;
  readonly #id = nextRequestId();
  readonly #guard: Guard;
  readonly #chunks: AsyncGenerator<Chunk, void, void>;
  #reading = 0;
  #startedAt = 0;
  #body: string | Uint8Array | null = null;
  /** The handle route was not found. */
  #routeMissing = false;

  constructor(request: BuiltRequest, host: CallHost, call: AnswerCall, facts: AnswerFacts) {
    this.#request = request;
    this.#host = host;
    this.#call = call;
    this.#facts = facts;
    this.#guard = new Guard(call.signal);
    this.#chunks = this.#run();
  }

  get bodyBytes(): number | null {
    return this.#body === null ? null : Buffer.byteLength(this.#body);
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
    const { guards } = this.#host;
    const { options } = this.#call;
    this.#startedAt = performance.now();
    this.#publishStart();
    guards.add(this.#guard);
    let whole = false;
    let failed = false;
    try {
      this.#host.checkOpen();
      const lengthAsked = this.#host.checkLength(this.#request);
      if (lengthAsked !== undefined) await this.#guard.race(lengthAsked);
      for (let retries = 0; ; ) {
        this.#facts.attempts++;
        try {
          yield* this.#attempt();
          break;
        } catch (error) {
          this.#host.onError(error);
          const instead = this.#otherWay(error);
          if (instead !== null) {
            this.#sendInstead(instead);
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
    const { options, headers } = this.#call;
    const { path, stream, headers: own } = this.#request;
    const guard = this.#guard;
    const body = this.#body ?? (await this.#writeBody());
    if (stream) guard.setDeadline("first_token", options.timeouts.firstTokenMs);
    else guard.setDeadline("answer", options.timeouts.answerMs);
    const exchange = await this.#host.transport.send(
      {
        method: "POST",
        path,
        body,
        headers: { accept: stream ? "text/event-stream" : "application/json", ...headers, ...own },
      },
      guard,
    );
    try {
      if (exchange.status !== 200) throw await exchange.toError(this.#redact);
      yield* stream ? this.#readStream(exchange) : this.#readWhole(exchange);
    } finally {
      guard.clearDeadline();
      exchange.close();
    }
  }

  async #writeBody(): Promise<string | Uint8Array> {
    const { body } = this.#request;
    this.#body = typeof body === "string" ? body : await body();
    return this.#body;
  }

  async *#readWhole(exchange: Exchange): AsyncGenerator<Chunk, void, void> {
    if (!exchange.contentType.includes("json")) throw contentTypeError("JSON", exchange.contentType);
    const data = await exchange.readAll(this.#call.options.maxAnswerBytes);
    this.#guard.clearDeadline();
    const chunks = readAnswer(data, this.#facts, this.#reader(true));
    this.#checkIds();
    if (!this.#ended)
      throw new PromptseamError("PS_PROTOCOL", "The server's JSON is not an answer to this request.");
    this.#facts.complete = true;
    this.#keepHandle();
    yield this.#start();
    yield* chunks;
  }

  async *#readStream(exchange: Exchange): AsyncGenerator<Chunk, void, void> {
    if (!exchange.contentType.includes("text/event-stream")) {
      throw contentTypeError("an event stream", exchange.contentType);
    }
    const { options } = this.#call;
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
        this.#keepHandle();
        exchange.drain();
        return;
      }
      const chunks = readAnswer(data, this.#facts, reader);
      if (this.#facts.firstTokenMs === null) {
        this.#checkIds();
        yield this.#start();
        this.#guard.check();
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

  readonly #redact = (message: string): string => this.#host.redact(message, this.#request.content());

  #reader(whole: boolean): Reading {
    return { whole, logprobs: this.#request.logprobs, redact: this.#redact };
  }

  /** Joins what the server says it keeps with the ids that it must be. */
  #keepHandle(): void {
    const { reference } = this.#facts;
    const { handle } = this.#request;
    if (reference === null || handle === null) return;
    this.#facts.handle = heldBy(reference, handle.prompt, this.#facts.sampledIds());
  }

  #start(): Chunk {
    const elapsedMs = performance.now() - this.#startedAt;
    this.#facts.firstTokenMs = elapsedMs;
    this.#facts.way = this.#request.way;
    // Only now is it told from a request that no route takes.
    if (this.#routeMissing) this.#host.noHandles();
    publish("requestFirstToken", () => ({ id: this.#id, elapsedMs, attempt: this.#facts.attempts }));
    return { type: "start", requestId: this.#facts.requestId, promptTokens: this.#facts.promptTokens };
  }

  #mayRetry(error: unknown): boolean {
    return (
      PromptseamError.isInstance(error) &&
      (error.details.retryable === true || isServerError(error)) &&
      this.#facts.firstTokenMs === null &&
      this.#guard.failure === null
    );
  }

  /** How else the request is sent that was not taken as it was; null where it is not. Nothing of an answer was given out. */
  #otherWay(error: unknown): BuiltRequest | null {
    const { asMessages, handle } = this.#request;
    if (error instanceof IdsIgnored) {
      this.#facts.idsIgnored = true;
      return asMessages?.() ?? null;
    }
    if (handle === null || !isRouteRefusal(error)) return null;
    if (isHandleMiss(error)) {
      this.#facts.handleMisses++;
      const { promptTokens } = this.#request;
      publish("handleMiss", () => ({ id: this.#id, promptTokens, named: handle.whole !== null }));
      if (handle.whole !== null) return handle.whole();
    } else if (mayBeMissing(error)) {
      this.#routeMissing = true;
    }
    return handle.asChatIds();
  }

  /** The request that was under way is over by now: it was refused, or its exchange is closed. */
  #sendInstead(request: BuiltRequest): void {
    this.#request = request;
    this.#body = null;
    this.#facts.startOver();
  }

  async #backOff(longestMs: number): Promise<void> {
    const ms = longestMs * (0.5 + Math.random() / 2);
    let timer: NodeJS.Timeout | undefined;
    const waited = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms);
    });
    await this.#guard.race(waited).finally(() => clearTimeout(timer));
  }

  #publishStart(): void {
    const { way, path, promptTokens, stream } = this.#request;
    publish("requestStart", () => ({
      id: this.#id,
      way,
      method: "POST",
      path,
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
    const { firstTokenMs, attempts, idsIgnored, handleMisses } = this.#facts;
    const { promptTokens, cachedTokens, completionTokens } = this.#facts;
    publish("requestEnd", () => ({
      id: this.#id,
      elapsedMs: performance.now() - this.#startedAt,
      firstTokenMs,
      attempts,
      cancelled,
      bodyBytes: this.bodyBytes ?? 0,
      idsIgnored,
      handleMisses,
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
