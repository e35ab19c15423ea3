/** An HTTP server in this process that speaks vLLM 0.32's protocol, with a simulated engine behind it. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { HANDLE_CHAT_PATH, HANDLES_PATH } from "../vllm/handle.ts";
import { asArray, asObject, asString, type JsonObject } from "../vllm/json.ts";
import { streamEvents, wholeAnswer } from "./answers.ts";
import { Engine, type EngineOptions, type Generation } from "./engine.ts";
import { type Fault, type FaultOptions, FaultPlan } from "./faults.ts";
import { ExchangeEnded, errorBody, FaultyResponse } from "./faulty-response.ts";
import { HandleStore, handleMiss, type ServerHandles } from "./handles.ts";
import { byteModel, idsOf, type TestModel } from "./model.ts";
import { checkedIds, type Limits, parseRequest, Refusal, type Way } from "./requests.ts";
import type { ScriptedAnswer } from "./script.ts";

/** Largest request body that is read. */
const MAX_BODY_BYTES = 256 * 1024 * 1024;

/** What is said to a request: one answer for all, one after the other (the last again and again), or what a function says. */
export type Answers =
  | ScriptedAnswer
  | readonly ScriptedAnswer[]
  | ((request: JsonObject, number: number) => ScriptedAnswer);

/** Options of {@link startTestServer}. */
export interface TestServerOptions extends EngineOptions {
  /** Renders, encodes and decodes: a `Model`, or the default, whose tokens are bytes. */
  readonly model?: TestModel;
  /** Served model name. Default `test`. */
  readonly modelName?: string;
  /** Asked for as `authorization: Bearer ...` on /v1 and /inference. Default: none. */
  readonly apiKey?: string;
  /** Default 131,072. */
  readonly maxModelLength?: number;
  /** Ids from here on are refused. Default: the model's, else no limit. */
  readonly vocabularySize?: number;
  /** Does not know `kv_transfer_params.prompt_token_ids`, as releases before mid-2026. Default false. */
  readonly ignoresIds?: boolean;
  /** Serves /inference/v1/generate and its abort, as with --enable-scale-out. Default true. */
  readonly scaleOut?: boolean;
  /** Has the prompt-handle plugin of `python/`. Default false. */
  readonly promptHandles?: boolean;
  /** Milliseconds for which a handle is kept after its last use. Default one hour. */
  readonly handleTtlMs?: number;
  /** Milliseconds for each 1,000 tokens that the server itself has to render and tokenize. Default 0. */
  readonly renderMsPer1000?: number;
  /** Default: the text `ok`. */
  readonly answers?: Answers;
  /** Default: a free one. */
  readonly port?: number;
}

/** One request that was answered, or that a fault got. */
export interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: JsonObject | null;
  readonly bodyBytes: number;
  /** The prompt that the engine saw; null where the request never got there. */
  ids: Uint32Array | null;
  cachedTokens: number | null;
  /** The client went away before the end. */
  aborted: boolean;
}

/** A running test server. */
export interface TestServer extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` */
  readonly baseUrl: string;
  /** All requests so far, in order. */
  readonly requests: readonly RecordedRequest[];
  /** What it keeps of prompts. */
  readonly handles: ServerHandles;
  /** Connections that are open now. */
  readonly openConnections: number;
  /** Makes the next requests fail. */
  fail(fault: Fault, options?: FaultOptions): void;
  /** Forgets the faults that were not served yet. */
  heal(): void;
  /** Says something else from now on. */
  answer(answers: Answers): void;
  /** Empties the prefix cache. */
  resetCache(): void;
  /** Cuts all connections and refuses new ones. */
  stop(): Promise<void>;
  /** Listens again on the same port, with a cold cache and without handles, as after a restart. */
  start(): Promise<void>;
  close(): Promise<void>;
}

/** Starts a test server on the loopback interface. */
export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const server = new InProcessServer(options);
  await server.start();
  return server;
}

const ID_PREFIX: Record<Way, string> = {
  chat: "chatcmpl-",
  completions: "cmpl-",
  generate: "generate-tokens-",
};

/** A route that the server does not have. */
class NotServed extends Error {}

class InProcessServer implements TestServer {
  readonly requests: RecordedRequest[] = [];
  readonly handles: HandleStore;
  readonly #options: TestServerOptions;
  readonly #model: TestModel;
  readonly #modelName: string;
  readonly #maxModelLength: number;
  readonly #faults = new FaultPlan();
  readonly #sockets = new Set<Socket>();
  #engine: Engine;
  #answers: Answers;
  #server: Server | null = null;
  #port: number;
  #generated = 0;
  /** Seconds since the epoch. */
  #startedAt = 0;
  readonly #aborted = new Set<string>();

  constructor(options: TestServerOptions) {
    this.#options = options;
    this.#model = options.model ?? byteModel();
    this.#modelName = options.modelName ?? "test";
    this.#maxModelLength = options.maxModelLength ?? 131_072;
    this.#engine = new Engine(this.#model, options);
    this.handles = new HandleStore({
      loaded: options.promptHandles ?? false,
      ttlMs: options.handleTtlMs ?? 3_600_000,
      modelName: this.#modelName,
    });
    this.#answers = options.answers ?? { text: "ok" };
    this.#port = options.port ?? 0;
  }

  get baseUrl(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get openConnections(): number {
    return this.#sockets.size;
  }

  fail(fault: Fault, options?: FaultOptions): void {
    this.#faults.add(fault, options);
  }

  heal(): void {
    this.#faults.clear();
  }

  answer(answers: Answers): void {
    this.#answers = answers;
    this.#generated = 0;
  }

  resetCache(): void {
    this.#engine.cache.clear();
  }

  async start(): Promise<void> {
    if (this.#server !== null) return;
    const server = createServer((request, response) => {
      this.#handle(request, response).catch(() => response.destroy());
    });
    server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
    this.#server = server;
    this.#startedAt = Date.now() / 1000;
    this.#engine = new Engine(this.#model, this.#options);
    this.handles.clear();
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject).listen(this.#port, "127.0.0.1", resolve);
    });
    this.#port = (server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null) return;
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async close(): Promise<void> {
    await this.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = new URL(request.url ?? "/", this.baseUrl).pathname;
    const { body, bytes, broken } = await readBody(request);
    const record: RecordedRequest = {
      method: request.method ?? "GET",
      path,
      headers: request.headers,
      body,
      bodyBytes: bytes,
      ids: null,
      cachedTokens: null,
      aborted: false,
    };
    this.requests.push(record);
    response.on("close", () => {
      record.aborted = !response.writableFinished;
    });

    const fault = this.#faults.take(path);
    const out = new FaultyResponse(response, fault);
    try {
      await out.beforeHeaders();
      this.#authorize(request, path);
      if (broken) throw new Refusal(400, "[{'type': 'json_invalid', 'msg': 'JSON decode error'}]");
      await this.#route(record, out, fault);
    } catch (error) {
      if (error instanceof ExchangeEnded) return;
      if (error instanceof NotServed) return out.json(404, { detail: "Not Found" });
      if (!(error instanceof Refusal)) throw error;
      response
        .writeHead(error.status, { "content-type": "application/json" })
        .end(errorBody(error.status, error.message, error.members));
    }
  }

  #authorize(request: IncomingMessage, path: string): void {
    const { apiKey } = this.#options;
    const guarded = path.startsWith("/v1") || path.startsWith("/inference");
    if (apiKey !== undefined && guarded && request.headers.authorization !== `Bearer ${apiKey}`) {
      throw new Refusal(401, "Unauthorized");
    }
  }

  async #route(record: RecordedRequest, out: FaultyResponse, fault: Fault | null): Promise<void> {
    const limits: Limits = {
      modelName: this.#modelName,
      maxModelLength: this.#maxModelLength,
      vocabularySize: this.#options.vocabularySize ?? this.#model.vocabularySize ?? 0x1_0000_0000,
      ignoresIds: fault?.kind === "ids_ignored" || this.#options.ignoresIds === true,
      lateUsage: fault?.kind === "late_usage",
    };
    const body = record.body ?? {};
    if (record.path.startsWith(HANDLES_PATH)) return this.#byHandle(record, body, limits, out, fault);
    if (this.#options.scaleOut === false && record.path.startsWith("/inference/")) throw new NotServed();
    switch (`${record.method} ${record.path}`) {
      case "POST /v1/chat/completions":
        return this.#generate("chat", record, body, limits, out);
      case "POST /v1/completions":
        return this.#generate("completions", record, body, limits, out);
      case "POST /inference/v1/generate":
        return this.#generate("generate", record, body, limits, out);
      case "POST /v1/chat/completions/render": {
        const { ids } = await parseRequest("chat", body, this.#model, limits);
        return out.json(200, { request_id: "render-1", token_ids: [...ids], sampling_params: {} });
      }
      case "POST /tokenize": {
        const text = asString(body["prompt"]);
        const ids =
          text === null
            ? (await parseRequest("chat", body, this.#model, limits)).ids
            : idsOf(await this.#model.encode(text));
        return out.json(200, {
          count: ids.length,
          max_model_len: this.#maxModelLength,
          tokens: [...ids],
          token_strs: null,
        });
      }
      case "POST /detokenize": {
        const ids = checkedIds(body["tokens"], "tokens", limits);
        return out.json(200, { prompt: await this.#model.decode(ids) });
      }
      case "POST /inference/v1/abort_requests":
        for (const id of asArray(body["request_ids"])) this.#aborted.add(String(id));
        return out.json(200, {});
      case "POST /reset_prefix_cache":
        this.resetCache();
        return out.json(200, { success: true });
      case "GET /health":
        return out.text("text/plain", "");
      case "GET /version":
        return out.json(200, { version: "0.32.0" });
      case "GET /v1/models": {
        const data = [
          {
            id: this.#modelName,
            object: "model",
            root: this.#modelName,
            max_model_len: this.#maxModelLength,
          },
        ];
        return out.json(200, { object: "list", data });
      }
      case "GET /metrics": {
        const { queries, hits } = this.#engine.cache;
        const labels = `engine="0",model_name="${this.#modelName}"`;
        const counter = (name: string, value: number) =>
          `# TYPE ${name} counter\n${name}_total{${labels}} ${value}.0\n`;
        const gauge = (name: string, more: string, value: number) =>
          `# TYPE ${name} gauge\n${name}${more} ${value}\n`;
        const cache = `{block_size="${this.#engine.cache.blockSize}",enable_prefix_caching="True",engine="0"}`;
        return out.text(
          "text/plain; version=0.0.4",
          gauge("process_start_time_seconds", "", this.#startedAt) +
            gauge("vllm:cache_config_info", cache, 1) +
            counter("vllm:prefix_cache_queries", queries) +
            counter("vllm:prefix_cache_hits", hits),
        );
      }
      default:
        throw new NotServed();
    }
  }

  async #byHandle(
    record: RecordedRequest,
    body: JsonObject,
    limits: Limits,
    out: FaultyResponse,
    fault: Fault | null,
  ): Promise<void> {
    const { method, path, headers } = record;
    if (!this.handles.loaded) throw new NotServed();
    if (method !== "POST" || path !== HANDLE_CHAT_PATH) {
      const answer = this.handles.answer(`${method} ${path}`, headers, body, limits);
      if (answer === null) throw new NotServed();
      return out.json(200, answer);
    }
    if (fault?.kind === "handle_miss") throw handleMiss();
    const owner = this.handles.owner(headers, body);
    const ids = this.handles.prompt(owner, body, limits);
    return this.#generate("chat", record, body, limits, out, { owner, ids });
  }

  async #generate(
    way: Way,
    record: RecordedRequest,
    body: JsonObject,
    limits: Limits,
    out: FaultyResponse,
    handle?: { readonly owner: string; readonly ids: Uint32Array },
  ): Promise<void> {
    const request = await parseRequest(way, body, this.#model, limits, handle?.ids);
    record.ids = request.ids;
    if (!request.tokenIn) {
      const ms = (request.ids.length / 1000) * (this.#options.renderMsPer1000 ?? 0);
      if (ms > 0) await sleep(ms);
    }
    const number = this.#generated++;
    const script = this.#script(body, number);
    const generation = await this.#engine.start({
      ids: request.ids,
      salt: request.salt,
      maxTokens: request.maxTokens,
      script,
    });
    record.cachedTokens = generation.cachedTokens;
    const who = {
      id: `${ID_PREFIX[way]}${asString(record.headers["x-request-id"] ?? null) ?? number}`,
      model: this.#modelName,
      created: Math.floor(Date.now() / 1000),
    };
    const keep = () =>
      handle === undefined ? {} : { prompt_cache_ref: this.#keep(handle.owner, request.ids, generation) };
    if (!request.stream) return out.json(200, { ...wholeAnswer(who, request, generation), ...keep() });
    await out.beginStream();
    let waited = 0;
    let whole = true;
    for (const { token, event } of streamEvents(who, request, generation)) {
      if (this.#aborted.delete(who.id)) {
        const choices = [{ index: 0, delta: {}, finish_reason: "abort", stop_reason: null }];
        await out.event({ id: who.id, choices });
        whole = false;
        break;
      }
      if (token > waited && script.tokenDelayMs !== undefined) {
        await sleep(script.tokenDelayMs);
        waited = token;
      }
      await out.event(event);
    }
    if (out.longLine > 0) {
      const choices = [{ index: 0, delta: { content: "x".repeat(out.longLine) }, finish_reason: null }];
      await out.event({ id: who.id, choices });
    }
    if (handle !== undefined) await out.event(whole ? keep() : { prompt_cache_ref: null });
    await out.endStream();
  }

  #keep(owner: string, prompt: Uint32Array, { sampled }: Generation): object {
    const ids = new Uint32Array(prompt.length + sampled.tokens.length);
    ids.set(prompt);
    ids.set(
      sampled.tokens.map(({ id }) => id),
      prompt.length,
    );
    return this.handles.put(owner, ids);
  }

  #script(body: JsonObject, number: number): ScriptedAnswer {
    const script = asString(asObject(body["vllm_xargs"])?.["script"]);
    if (script !== null) return { ids: script.split(" ").map(Number) };
    const answers = this.#answers;
    if (typeof answers === "function") return answers(body, number);
    if (!Array.isArray(answers)) return answers as ScriptedAnswer;
    return (answers as readonly ScriptedAnswer[])[Math.min(number, answers.length - 1)] ?? {};
  }
}

async function readBody(
  request: IncomingMessage,
): Promise<{ body: JsonObject | null; bytes: number; broken: boolean }> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > MAX_BODY_BYTES) break;
    parts.push(part);
  }
  if (bytes === 0) return { body: null, bytes, broken: false };
  try {
    const value = asObject(JSON.parse(Buffer.concat(parts).toString("utf8")));
    return { body: value, bytes, broken: value === null };
  } catch {
    return { body: null, bytes, broken: true };
  }
}
