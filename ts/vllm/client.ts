/** The vLLM client: every way in, one type of answer. */

import { PromptseamError } from "../errors.ts";
import { publish } from "../events.ts";
import { Answer, nextRequestId } from "./answer.ts";
import { Guard } from "./guard.ts";
import { asArray, asCount, asObject, asString, type JsonObject, parseObject } from "./json.ts";
import type { GenerateOptions } from "./options.ts";
import {
  type CallOptions,
  overrideOptions,
  type ResolvedOptions,
  resolveOptions,
  type VllmClientOptions,
} from "./options.ts";
import { redactor } from "./redact.ts";
import {
  type BuiltRequest,
  buildChat,
  buildCompletion,
  buildGenerate,
  type ChatOptions,
  type ChatRequest,
  type CompletionParams,
  type GenerateRequestOptions,
  type SamplingParams,
} from "./requests.ts";
import { Transport } from "./transport.ts";
import type { WirePrompt } from "./wire.ts";

/** A model that the server serves. */
export interface ServedModel {
  /** The name to ask for. */
  readonly id: string;
  /** Longest prompt and answer together, in tokens. */
  readonly maxModelLength: number | null;
  /** Where the server loaded it from. */
  readonly root: string | null;
}

/**
 * A client for one vLLM server (written against 0.32). Safe to share: calls run side by side on a pool of connections.
 *
 * ```ts
 * const client = new VllmClient({ baseUrl: "http://127.0.0.1:8000" });
 * for await (const chunk of client.chat({ messages: [{ role: "user", content: "Hello" }] })) {
 *   if (chunk.type === "text") process.stdout.write(chunk.text);
 * }
 * ```
 *
 * Failures are PromptseamErrors and hold neither the API key nor text of the prompt: `PS_CONNECT`, `PS_TIMEOUT` (see
 * `details.phase`), `PS_HTTP_STATUS` (see `details.status`), `PS_CONTEXT_OVERFLOW`, `PS_SERVER` (an error inside a stream),
 * `PS_PROTOCOL`, `PS_STREAM_TRUNCATED`, `PS_ABORTED`, `PS_CLOSED`.
 */
export class VllmClient implements AsyncDisposable {
  readonly #options: ResolvedOptions;
  readonly #transport: Transport;
  readonly #apiKey: string | null;
  readonly #guards = new Set<Guard>();
  #closed = false;

  /** @throws PromptseamError `PS_INVALID_ARGUMENT` */
  constructor(options: VllmClientOptions) {
    this.#options = resolveOptions(options);
    this.#transport = new Transport(options, this.#options.timeouts.connectMs);
    this.#apiKey = options.apiKey ?? null;
  }

  /**
   * Chat: as messages, which the server renders, or with `options.prompt` as ids, where the messages stay for tool and
   * reasoning parsing and for servers that do not know the field.
   *
   * @throws PromptseamError `PS_INVALID_REQUEST` at once; everything else while the answer is read
   */
  chat(request: ChatRequest, options: ChatOptions = {}): Answer {
    return this.#answer(buildChat(request, options), options);
  }

  /** Tokens in, tokens out (/inference/v1/generate; the server must run with --enable-scale-out). Nothing is parsed. */
  generate(prompt: WirePrompt, sampling: SamplingParams = {}, options: GenerateRequestOptions = {}): Answer {
    return this.#answer(buildGenerate(prompt, sampling, options), options);
  }

  /** Completion of ids (/v1/completions). Neither tool calls nor reasoning are parsed. */
  complete(prompt: WirePrompt, params: CompletionParams = {}, options: GenerateOptions = {}): Answer {
    return this.#answer(buildCompletion(prompt, params, options), options);
  }

  /** The models that the server serves. */
  async models(options: CallOptions = {}): Promise<ServedModel[]> {
    const list = await this.#getJson("/v1/models", options);
    return asArray(list["data"]).flatMap((entry) => {
      const model = asObject(entry);
      const id = asString(model?.["id"]);
      if (model === null || id === null) return [];
      return [{ id, maxModelLength: asCount(model["max_model_len"]), root: asString(model["root"]) }];
    });
  }

  /** The server's vLLM version. */
  async version(options: CallOptions = {}): Promise<string> {
    const version = asString((await this.#getJson("/version", options))["version"]);
    if (version === null) throw new PromptseamError("PS_PROTOCOL", "The server's /version holds no version.");
    return version;
  }

  /** Resolves when the engine is alive. @throws PromptseamError `PS_HTTP_STATUS` with status 503 when it is dead */
  async health(options: CallOptions = {}): Promise<void> {
    await this.#get("/health", options);
  }

  /** Stops what is running (`PS_CLOSED`) and closes the connections. Idempotent; a `dispatcher` of yours stays open. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const guard of this.#guards) guard.stop(closedError());
    await this.#transport.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #answer(request: BuiltRequest, options: CallOptions): Answer {
    this.#checkOpen();
    return new Answer(request, {
      transport: this.#transport,
      options: overrideOptions(this.#options, options),
      headers: callHeaders(options),
      signal: options.signal,
      redact: redactor(this.#apiKey, () => request.content),
      guards: this.#guards,
      checkOpen: () => this.#checkOpen(),
    });
  }

  async #getJson(path: string, options: CallOptions): Promise<JsonObject> {
    return parseObject(Buffer.from(await this.#get(path, options)).toString("utf8"));
  }

  async #get(path: string, options: CallOptions): Promise<Uint8Array> {
    this.#checkOpen();
    const settings = overrideOptions(this.#options, options);
    const id = nextRequestId();
    const startedAt = performance.now();
    publish("requestStart", () => ({
      id,
      way: "control",
      method: "GET",
      path,
      bodyBytes: 0,
      promptTokens: null,
      stream: false,
    }));
    const guard = new Guard(options.signal);
    this.#guards.add(guard);
    guard.setDeadline("answer", settings.timeouts.controlMs);
    try {
      const exchange = await this.#transport.send(
        { method: "GET", path, body: null, headers: callHeaders(options) },
        guard,
      );
      try {
        if (exchange.status !== 200) throw await exchange.toError(redactor(this.#apiKey, () => undefined));
        const body = await exchange.readAll(settings.maxAnswerBytes);
        publish("requestEnd", () => ({
          id,
          elapsedMs: performance.now() - startedAt,
          firstTokenMs: null,
          attempts: 1,
          cancelled: false,
          promptTokens: null,
          cachedTokens: null,
          completionTokens: null,
        }));
        return body;
      } finally {
        exchange.close();
      }
    } catch (error) {
      publish("requestError", () => ({
        id,
        elapsedMs: performance.now() - startedAt,
        attempts: 1,
        code: PromptseamError.isInstance(error) ? error.code : "PS_INTERNAL",
        status: PromptseamError.isInstance(error) ? (error.details.status ?? null) : null,
      }));
      throw error;
    } finally {
      this.#guards.delete(guard);
      guard.dispose();
    }
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError();
  }
}

function closedError(): PromptseamError {
  return new PromptseamError("PS_CLOSED", "The client was closed.");
}

function callHeaders(options: CallOptions): Record<string, string> {
  return {
    ...options.headers,
    ...(options.requestId === undefined ? {} : { "x-request-id": options.requestId }),
  };
}
