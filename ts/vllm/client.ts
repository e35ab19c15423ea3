/** The vLLM client: every way in, one type of answer. */

import { abortable } from "../abort.ts";
import { PromptseamError } from "../errors.ts";
import type { Model } from "../model.ts";
import type { Prompt } from "../prompt.ts";
import { Answer, type CallHost } from "./answer.ts";
import { type Capabilities, probeServer } from "./capabilities.ts";
import { type ControlRequest, callServer } from "./control.ts";
import { isServerFailure } from "./failure.ts";
import type { Guard } from "./guard.ts";
import { HANDLES_PATH, type HandleServer, readHandshake } from "./handle.ts";
import { asArray, asCount, asObject, asString, type JsonObject, parseObject } from "./json.ts";
import { Metrics } from "./metrics.ts";
import {
  type CallOptions,
  callHeaders,
  type GenerateOptions,
  overrideOptions,
  type ResolvedOptions,
  resolveOptions,
  type VllmClientOptions,
} from "./options.ts";
import { redact } from "./redact.ts";
import { Remembered } from "./remembered.ts";
import {
  type BuiltRequest,
  buildChat,
  buildCompletion,
  buildGenerate,
  buildRender,
  type ChatOptions,
  type ChatRequest,
  type CompletionParams,
  type GenerateRequestOptions,
  type SamplingParams,
  stringify,
} from "./requests.ts";
import { Transport } from "./transport.ts";
import { type VerifyOptions, type VerifyReport, verifyModel } from "./verify.ts";
import { readEvent, type WirePrompt } from "./wire.ts";

/** A model that the server serves. */
export interface ServedModel {
  /** The name to ask for. */
  readonly id: string;
  /** Longest prompt and answer together, in tokens. */
  readonly maxModelLength: number | null;
  /** Where the server loaded it from. */
  readonly root: string | null;
}

/** Options of {@link VllmClient.tokenize}. */
export interface TokenizeOptions extends CallOptions {
  readonly model?: string;
  /** Add the tokens that the tokenizer puts at the ends of a text, such as BOS. Default false. */
  readonly addSpecialTokens?: boolean;
}

/** How long a server that had no handles is taken not to have any. */
const NO_HANDLES_MS = 60_000;

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
  /** Where the server is, without credentials or a slash at the end. */
  readonly baseUrl: string;
  readonly #options: ResolvedOptions;
  readonly #transport: Transport;
  readonly #host: CallHost;
  readonly #guards = new Set<Guard>();
  readonly #limits = new Remembered<ReadonlyMap<string, number>>();
  readonly #capabilities = new Map<string | undefined, Remembered<Probed>>();
  readonly #handles = new Remembered<HandleServer | null>();
  /** By `performance.now()`. */
  #handlesAskedAt = 0;
  /** Connections were closed since the server was asked what it can do: it may have been restarted. */
  #mayBeAnother = false;
  /** The same for its handles. */
  #mayHaveHandles = false;
  #closed = false;

  /** @throws PromptseamError `PS_INVALID_ARGUMENT` */
  constructor(options: VllmClientOptions) {
    this.#options = resolveOptions(options);
    this.#transport = new Transport(options, this.#options.timeouts.connectMs, () => {
      this.#mayBeAnother = true;
      this.#mayHaveHandles = true;
    });
    const { origin, pathname } = new URL(options.baseUrl);
    this.baseUrl = `${origin}${pathname}`.replace(/\/+$/, "");
    const apiKey = options.apiKey ?? null;
    this.#host = {
      transport: this.#transport,
      guards: this.#guards,
      redact: (message, content) => redact(message, apiKey, content),
      checkOpen: () => this.#checkOpen(),
      checkLength: (request) => this.#checkLength(request),
      onError: (error) => this.#doubt(error),
      noHandles: () => this.#knowNoHandles(),
    };
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

  /** The prompt that the server makes of a chat request: its own template and tokenizer, no engine. */
  async render(
    request: ChatRequest,
    options: CallOptions & Pick<ChatOptions, "spelled"> = {},
  ): Promise<Prompt> {
    const { body, content } = buildRender(request, options.spelled);
    const answer = await this.#call({ path: "/v1/chat/completions/render", body, content }, options);
    return promptOf(answer);
  }

  /** The ids of a text, as the server's tokenizer gives them. Special tokens are recognized. */
  async tokenize(text: string, options: TokenizeOptions = {}): Promise<Prompt> {
    const body = stringify({
      model: options.model,
      prompt: text,
      add_special_tokens: options.addSpecialTokens ?? false,
    });
    return promptOf(await this.#call({ path: "/tokenize", body, content: () => text }, options));
  }

  /** The text of token ids, as the server's tokenizer gives it. */
  async detokenize(prompt: WirePrompt, options: CallOptions & { model?: string } = {}): Promise<string> {
    const members = stringify({ model: options.model }).slice(0, -1);
    const body = prompt.writeJson(`${members}${members === "{" ? "" : ","}"tokens":`, "}");
    const answer = await this.#call({ path: "/detokenize", body, promptTokens: prompt.length }, options);
    const text = asString(parseJson(answer)["prompt"]);
    if (text === null) throw new PromptseamError("PS_PROTOCOL", "The server's /detokenize holds no text.");
    return text;
  }

  /** The models that the server serves. */
  async models(options: CallOptions = {}): Promise<ServedModel[]> {
    const list = parseJson(await this.#call({ path: "/v1/models" }, options));
    return asArray(list["data"]).flatMap((entry) => {
      const model = asObject(entry);
      const id = asString(model?.["id"]);
      if (model === null || id === null) return [];
      return [{ id, maxModelLength: asCount(model["max_model_len"]), root: asString(model["root"]) }];
    });
  }

  /** The server's vLLM version. */
  async version(options: CallOptions = {}): Promise<string> {
    const version = asString(parseJson(await this.#call({ path: "/version" }, options))["version"]);
    if (version === null) throw new PromptseamError("PS_PROTOCOL", "The server's /version holds no version.");
    return version;
  }

  /** Resolves when the engine is alive. @throws PromptseamError `PS_HTTP_STATUS` with status 503 when it is dead */
  async health(options: CallOptions = {}): Promise<void> {
    await this.#call({ path: "/health" }, options);
  }

  /** The server's metrics. */
  async metrics(options: CallOptions = {}): Promise<Metrics> {
    return new Metrics(Buffer.from(await this.#call({ path: "/metrics" }, options)).toString("utf8"));
  }

  /**
   * Stops requests by their ids (`facts.requestId`; the server must run with --enable-scale-out). Unknown ids are no error.
   * Leaving an answer early does the same by closing its connection; this is for answers that another process reads.
   */
  async abort(requestIds: readonly string[], options: CallOptions = {}): Promise<void> {
    const body = stringify({ request_ids: requestIds });
    await this.#call({ path: "/inference/v1/abort_requests", body }, options);
  }

  /**
   * What the server says of its prompt handles; null where it has none (no plugin, another protocol, or a proxy that does not let
   * their routes through). Asked once, by a GET; again after a failure of the server, and a server without handles also at most
   * once a minute after connections to it were closed.
   */
  async promptHandles(options: CallOptions = {}): Promise<HandleServer | null> {
    this.#checkOpen();
    const { signal, ...others } = options;
    const { known } = this.#handles;
    if (known === null && this.#mayHaveHandles && performance.now() - this.#handlesAskedAt > NO_HANDLES_MS)
      this.#handles.forget();
    else if (known !== undefined) return known;
    return abortable(signal, () => this.#handles.get(() => this.#askHandles(others)));
  }

  /**
   * What this server showed it can do: it is asked once, by six requests of one token each under a cache salt of their own, and
   * again after a failure, or when it was restarted in between.
   *
   * @param options.model Served model name; default: the first one
   */
  async capabilities(options: CallOptions & { model?: string } = {}): Promise<Capabilities> {
    this.#checkOpen();
    const { model, signal, ...others } = options;
    const known = this.#capabilities.get(model) ?? new Remembered<Probed>();
    this.#capabilities.set(model, known);
    // Several callers may wait for the one probe: no one's signal ends it for the others.
    const probe = () => known.get(() => this.#probe(model, others));
    return abortable(signal, async () => {
      const probed = await probe();
      if (!this.#mayBeAnother) return probed.capabilities;
      this.#mayBeAnother = false;
      if (probed.startedAt === (await this.#startedAt(others))) return probed.capabilities;
      this.#forget();
      return await this.capabilities({ ...others, ...(model === undefined ? {} : { model }) });
    });
  }

  /**
   * Whether `model` renders as the server does: a battery of requests (roles, tools, reasoning, template arguments, Unicode) is
   * rendered here and there and compared id by id. Each difference is named in words.
   *
   * @throws PromptseamError where the server cannot be asked, `PS_HTTP_STATUS` 404 where it has no render endpoint
   */
  async verify(model: Model, options: VerifyOptions = {}): Promise<VerifyReport> {
    return verifyModel(this, model, options);
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
    return new Answer(request, this.#host, {
      options: overrideOptions(this.#options, options),
      headers: callHeaders(options),
      signal: options.signal,
    });
  }

  #call(request: ControlRequest, options: CallOptions): Promise<Uint8Array> {
    return callServer(this.#host, this.#options, request, options);
  }

  /**
   * Asks for the context lengths once; from then on it is a comparison.
   *
   * @throws PromptseamError `PS_CONTEXT_OVERFLOW` for ids that leave the server no room for a token
   */
  #checkLength(request: BuiltRequest): Promise<void> | undefined {
    if (request.promptTokens === null) return undefined;
    if (this.#limits.known !== undefined) {
      checkLength(request, this.#limits.known);
      return undefined;
    }
    return this.#limits.get(() => this.#askLimits()).then((limits) => checkLength(request, limits));
  }

  /** Context lengths by model. A server that does not say leaves the check to itself. */
  async #askLimits(): Promise<ReadonlyMap<string, number>> {
    const models = await this.models().catch(() => []);
    return new Map(
      models.flatMap(({ id, maxModelLength }) => (maxModelLength === null ? [] : [[id, maxModelLength]])),
    );
  }

  async #askHandles(options: CallOptions): Promise<HandleServer | null> {
    this.#handlesAskedAt = performance.now();
    this.#mayHaveHandles = false;
    let answer: Uint8Array;
    try {
      answer = await this.#call({ path: HANDLES_PATH }, options);
    } catch (error) {
      if (isServerFailure(error as PromptseamError) || !isStatus(error)) throw error;
      return null;
    }
    try {
      return readHandshake(parseJson(answer));
    } catch {
      // A page of a proxy's, which answers for routes that it does not know.
      return null;
    }
  }

  /** A server whose route is gone need not be asked whether it has one. */
  #knowNoHandles(): void {
    this.#handles.forget();
    this.#handlesAskedAt = performance.now();
    this.#mayHaveHandles = false;
    void this.#handles.get(async () => null);
  }

  async #probe(model: string | undefined, options: CallOptions): Promise<Probed> {
    this.#mayBeAnother = false;
    this.#handles.forget();
    const startedAt = await this.#startedAt(options);
    return { startedAt, capabilities: await probeServer(this, model, options) };
  }

  /** When the server's process began, by its metrics; NaN, which is never the same, where it does not say. */
  async #startedAt(options: CallOptions): Promise<number> {
    const metrics = await this.metrics(options).catch(() => null);
    return metrics?.sum("process_start_time_seconds") ?? Number.NaN;
  }

  /** What is known of the server holds no longer once it fails or behaves otherwise; refusals are as they should be. */
  #doubt(error: unknown): void {
    if (PromptseamError.isInstance(error) && !isServerFailure(error)) return;
    this.#forget();
  }

  #forget(): void {
    this.#limits.forget();
    this.#handles.forget();
    for (const probed of this.#capabilities.values()) probed.forget();
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError();
  }
}

function isStatus(error: unknown): boolean {
  return PromptseamError.isInstance(error) && error.code === "PS_HTTP_STATUS";
}

function closedError(): PromptseamError {
  return new PromptseamError("PS_CLOSED", "The client was closed.");
}

function checkLength({ promptTokens, model }: BuiltRequest, limits: ReadonlyMap<string, number>): void {
  const limit = model === undefined ? limits.values().next().value : limits.get(model);
  if (limit === undefined || promptTokens === null || promptTokens < limit) return;
  throw new PromptseamError(
    "PS_CONTEXT_OVERFLOW",
    `The prompt has ${promptTokens} tokens, and the model's context of ${limit} tokens must hold the answer too. Nothing was sent.`,
    { details: { promptTokens, maxModelLength: limit, retryable: false } },
  );
}

interface Probed {
  readonly capabilities: Capabilities;
  /** Seconds since the epoch; NaN where unknown. */
  readonly startedAt: number;
}

function parseJson(answer: Uint8Array): JsonObject {
  return parseObject(Buffer.from(answer).toString("utf8"));
}

function promptOf(answer: Uint8Array): Prompt {
  const { promptTokenIds } = readEvent(answer);
  if (promptTokenIds === null)
    throw new PromptseamError("PS_PROTOCOL", "The server's answer holds no token ids.");
  return promptTokenIds;
}
