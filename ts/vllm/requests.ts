/** Request types, and the bodies made of them: ids are written natively, everything else is passed through. */

import { PromptseamError } from "../errors.ts";
import type { RequestWay } from "../events.ts";
import { HANDLE_CHAT_PATH, type HandleOptions, tenantHeaders, writeByHandle } from "./handle.ts";
import { asObject, type JsonObject, type JsonValue, parseObject } from "./json.ts";
import type { GenerateOptions } from "./options.ts";
import type { WirePrompt } from "./wire.ts";

/** One message of a chat. All members are passed to the server as they are. */
export interface ChatMessage {
  readonly role: string;
  readonly content?: JsonValue;
  readonly [member: string]: JsonValue | undefined;
}

/** A request to /v1/chat/completions. Members without a type here are passed through; `stream` is an option of the call. */
export interface ChatRequest {
  /** Served model name; vLLM takes its own when left out. */
  readonly model?: string;
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly JsonObject[];
  readonly max_tokens?: number;
  readonly max_completion_tokens?: number;
  readonly temperature?: number;
  /** Isolates the tenant in the engine's prefix cache. */
  readonly cache_salt?: string;
  readonly [member: string]: JsonValue | undefined;
}

/** Options of a chat. */
export interface ChatOptions extends GenerateOptions {
  /**
   * The rendered prompt of this request. Its ids are sent (`kv_transfer_params.prompt_token_ids`), and the server skips its
   * template and tokenizer. A server that counts other tokens than these ignored them: before anything of its answer is
   * given out, that request is aborted and the messages are sent instead (`facts.idsIgnored`).
   */
  readonly prompt?: WirePrompt | undefined;
  /**
   * Sends the prompt by handle (the plugin in `python/`): what the server keeps of it is named, and only the ids behind it are
   * sent. What the server no longer keeps is sent again whole (`facts.handleMisses`); a server without the plugin gets all ids
   * beside the messages. Without a `prompt` this does nothing.
   */
  readonly handle?: HandleOptions | undefined;
  /**
   * Send the real messages beside the ids. By default long ones are replaced by a stand-in, which saves the server from
   * reading them; tools and all settings are always the real ones. Needed only for servers whose tool parser counts the calls
   * in earlier messages (Kimi K2's call ids).
   */
  readonly sendMessages?: boolean;
  /** @internal The request as it was spelled; the one that is given has no messages then. */
  readonly spelled?: Spelled | undefined;
}

/** @internal A request in JSON, passed on as it is: parsing it would change numbers that JavaScript has not. */
export interface Spelled {
  /** JSON objects that together hold its members, but for the messages. */
  readonly members: readonly string[];
  /** Its messages as a JSON list, made only when they must be sent. */
  readonly messages: () => string;
  /** Whether they are so long that a stand-in saves time. */
  readonly isLong: boolean;
}

/** vLLM's SamplingParams on the generate way (`max_tokens`, `temperature`, `stop_token_ids`, ...). */
export type SamplingParams = JsonObject;

/** Members of a generate request beside ids and sampling parameters. */
export interface GenerateRequestOptions extends GenerateOptions {
  readonly model?: string;
  readonly cacheSalt?: string;
  /** Whether the answer holds text beside the ids. Default `"text"`. */
  readonly outputMode?: "text" | "tokens";
  /** Further members of the request. */
  readonly request?: JsonObject;
}

/** A request to /v1/completions without its prompt. vLLM's default for `max_tokens` is 16. */
export interface CompletionParams {
  readonly model?: string;
  readonly max_tokens?: number;
  readonly temperature?: number;
  readonly cache_salt?: string;
  readonly [member: string]: JsonValue | undefined;
}

/** A request that goes by handle, and what is sent in its place where the server does not take it. */
export interface HandleRequest {
  readonly prompt: WirePrompt;
  /** The same with all ids, for a server that no longer keeps what was named; null where nothing was named. */
  readonly whole: (() => BuiltRequest) | null;
  readonly asChatIds: () => BuiltRequest;
}

/** A request ready to be sent. */
export interface BuiltRequest {
  readonly way: RequestWay;
  readonly path: string;
  /** Headers that belong to the way, above those of the call. */
  readonly headers: Readonly<Record<string, string>>;
  /** JSON; ids are written only when the request is sent. @throws PromptseamError `PS_CLOSED` for a closed prompt */
  readonly body: string | (() => Promise<Uint8Array>);
  readonly stream: boolean;
  /** Choices that must end before the answer is whole. */
  readonly choices: number;
  readonly promptTokens: number | null;
  /** The caller asked for log probabilities itself. */
  readonly logprobs: boolean;
  /** What an error must not quote. */
  readonly content: () => JsonValue | undefined;
  /** Served model name, where the request has one. */
  readonly model: string | undefined;
  /** The same request without its ids, for a server that ignores them. */
  readonly asMessages: (() => BuiltRequest) | null;
  /** Null for every other way. */
  readonly handle: HandleRequest | null;
  /** Only the right count of tokens shows that the server answers this request: it was not given the messages. */
  readonly standIn: boolean;
}

/** Text of the messages below this length is sent beside ids too. In UTF-16 code units of JSON. */
const STAND_IN_FROM = 4_096;
const STAND_IN: readonly ChatMessage[] = [{ role: "user", content: "" }];
const NONE: Readonly<Record<string, string>> = {};

/** @throws PromptseamError `PS_INVALID_REQUEST` */
export function buildChat(request: ChatRequest, options: ChatOptions): BuiltRequest {
  if (typeof request !== "object" || request === null || !Array.isArray(request.messages)) {
    throw new PromptseamError("PS_INVALID_REQUEST", "A chat request needs messages: an array.");
  }
  const stream = options.stream ?? true;
  const { prompt, spelled, handle } = options;
  const byHandle = prompt !== undefined && handle !== undefined;
  const sampledIds = waySampled(options, byHandle ? "token_ids" : "logprobs");
  const logprobs = sampledIds === "logprobs" ? LOGPROBS_OF_CHAT : {};
  const members = {
    ...withDefaults(logprobs, request),
    ...streaming(stream, request),
    ...tokenIds(sampledIds),
  };
  const common = {
    path: "/v1/chat/completions",
    headers: NONE,
    handle: null,
    stream,
    choices: choices(request["n"]),
    logprobs: request["logprobs"] === true,
    content: () => (spelled === undefined ? contentOf(request) : parsed(spelled)),
    model: request.model,
  };
  const text = (changed: JsonObject): string =>
    spelled === undefined
      ? stringify({ ...members, ...changed })
      : spell(spelled, request, { ...members, ...changed });
  if (prompt === undefined) {
    return { ...common, way: "chat", body: text({}), promptTokens: null, asMessages: null, standIn: false };
  }
  const asMessages = () => buildChat(request, { ...options, prompt: undefined });
  const transfer = transferOf(request, spelled);
  if (byHandle) {
    const head = text({
      ...(options.sendMessages === true ? {} : { messages: STAND_IN }),
      // The prompt is given once, and by us.
      ...("prompt_token_ids" in transfer
        ? { kv_transfer_params: { ...transfer, prompt_token_ids: undefined } }
        : {}),
      prompt_cache_ref: undefined,
      append_token_ids: undefined,
    });
    const { from } = handle;
    const again = { ...options, handle: { ...handle, from: undefined } };
    return {
      ...common,
      way: "handle",
      path: HANDLE_CHAT_PATH,
      headers: tenantHeaders(handle.tenant),
      body: () => writeByHandle(open(head), prompt, from),
      promptTokens: prompt.length,
      asMessages,
      handle: {
        prompt,
        whole: from === undefined ? null : () => buildChat(request, again),
        asChatIds: () => buildChat(request, { ...options, handle: undefined }),
      },
      standIn: countsTokens(members),
    };
  }
  const isLong = spelled === undefined ? areLong(request.messages) : spelled.isLong;
  const standIn = options.sendMessages !== true && countsTokens(members) && isLong;
  const head = text({ kv_transfer_params: undefined, ...(standIn ? { messages: STAND_IN } : {}) });
  const rest = stringify({ ...transfer, prompt_token_ids: undefined });
  const before = `${open(head)}"kv_transfer_params":${open(rest)}"prompt_token_ids":`;
  return {
    ...common,
    way: "chat_ids",
    body: () => prompt.toBody(before, "}}"),
    promptTokens: prompt.length,
    asMessages,
    standIn,
  };
}

/** The text of a spelled request with `members` in place of those it has, and behind them, where the last of two counts. */
function spell({ members: texts, messages }: Spelled, request: ChatRequest, members: JsonObject): string {
  const changed: Record<string, JsonValue> = {};
  for (const [name, value] of Object.entries(members)) {
    // What is left out must not stand there either: vLLM takes null for that.
    if (value === request[name]) continue;
    if (value !== undefined || request[name] !== undefined) changed[name] = value ?? null;
  }
  const own = "messages" in changed ? "" : `{"messages":${messages()}}`;
  const parts = [...texts, own, stringify(changed)].map((text) => text.trim().slice(1, -1).trim());
  return `{${parts.filter((part) => part !== "").join(",")}}`;
}

function parsed({ messages }: Spelled): JsonValue {
  return JSON.parse(messages());
}

/** The request's own parameters beside the ids. */
function transferOf(request: ChatRequest, spelled: Spelled | undefined): JsonObject {
  const own = asObject(request["kv_transfer_params"]);
  if (own !== null || spelled === undefined) return own ?? {};
  const text = spelled.members.find((member) => member.includes('"kv_transfer_params"'));
  return text === undefined ? {} : (asObject(parseObject(text)["kv_transfer_params"]) ?? {});
}

/** The body for the render endpoint, and what errors must not quote of it. @throws PromptseamError `PS_INVALID_REQUEST` */
export function buildRender(
  request: ChatRequest,
  spelled: Spelled | undefined,
): Pick<BuiltRequest, "content"> & { readonly body: string } {
  if (spelled === undefined) return { body: stringify(request), content: () => contentOf(request) };
  return { body: spell(spelled, request, {}), content: () => parsed(spelled) };
}

/** The part of a chat request that errors must not quote. */
function contentOf(request: ChatRequest): JsonValue {
  return [request.messages, request.tools ?? null] as JsonValue;
}

/** Whether the server will say, before its first token or with its whole answer, how long the prompt was. */
function countsTokens(members: JsonObject): boolean {
  const options = asObject(members["stream_options"]);
  return (
    members["stream"] === false ||
    (options?.["include_usage"] === true && options["continuous_usage_stats"] === true)
  );
}

/** Long enough that a stand-in saves time, and that no prompt of a stand-in is as long by chance. O({@link STAND_IN_FROM}). */
function areLong(messages: readonly ChatMessage[]): boolean {
  let length = 0;
  for (const { content } of messages) {
    length += 32 + (typeof content === "string" ? content.length : 0);
    if (length >= STAND_IN_FROM) return true;
  }
  return false;
}

/** @throws PromptseamError `PS_INVALID_REQUEST` */
export function buildGenerate(
  prompt: WirePrompt,
  sampling: SamplingParams,
  options: GenerateRequestOptions,
): BuiltRequest {
  const stream = options.stream ?? true;
  const members = stringify({
    ...options.request,
    model: options.model,
    cache_salt: options.cacheSalt ?? options.request?.["cache_salt"],
    output_mode: options.outputMode ?? "text",
    ...streaming(stream, options.request),
    sampling_params: sampling,
  });
  return {
    way: "generate",
    path: "/inference/v1/generate",
    body: () => prompt.toBody(`${open(members)}"token_ids":`, "}"),
    stream,
    choices: choices(sampling["n"]),
    promptTokens: prompt.length,
    logprobs: typeof sampling["logprobs"] === "number",
    content: () => undefined,
    model: options.model,
    asMessages: null,
    headers: NONE,
    handle: null,
    standIn: false,
  };
}

/** @throws PromptseamError `PS_INVALID_REQUEST` */
export function buildCompletion(
  prompt: WirePrompt,
  params: CompletionParams,
  options: GenerateOptions,
): BuiltRequest {
  const stream = options.stream ?? true;
  const sampledIds = waySampled(options, "logprobs");
  const logprobs = sampledIds === "logprobs" ? LOGPROBS_OF_COMPLETION : {};
  const members = stringify({
    ...withDefaults(logprobs, params),
    ...streaming(stream, params),
    ...tokenIds(sampledIds),
    prompt: undefined,
  });
  return {
    way: "completions",
    path: "/v1/completions",
    body: () => prompt.toBody(`${open(members)}"prompt":`, "}"),
    stream,
    choices: choices(params["n"]),
    promptTokens: prompt.length,
    logprobs: typeof params["logprobs"] === "number",
    content: () => undefined,
    model: params.model,
    asMessages: null,
    headers: NONE,
    handle: null,
    standIn: false,
  };
}

const LOGPROBS_OF_CHAT: JsonObject = { logprobs: true, top_logprobs: 0, return_tokens_as_token_ids: true };
const LOGPROBS_OF_COMPLETION: JsonObject = { logprobs: 0, return_tokens_as_token_ids: true };

/** Ours only where the caller has none: a request for more log probabilities stays as it is. */
function withDefaults(defaults: JsonObject, request: JsonObject): JsonObject {
  const asked = request["logprobs"];
  const keep = asked === undefined || asked === null || asked === false;
  return keep
    ? { ...request, ...defaults }
    : { ...request, ...("logprobs" in defaults ? { return_tokens_as_token_ids: true } : {}) };
}

type SampledIds = Exclude<NonNullable<GenerateOptions["sampledIds"]>, "auto">;

/** How the sampled ids are asked for: as the caller says, else in the way that costs least on this route. */
function waySampled({ sampledIds = "none" }: GenerateOptions, cheapest: SampledIds): SampledIds {
  return sampledIds === "auto" ? cheapest : sampledIds;
}

function tokenIds(how: SampledIds): JsonObject {
  return how === "token_ids" ? { return_token_ids: true } : {};
}

/** Usage is asked for in every event: the first one then says how long the prompt was that the engine saw. */
function streaming(stream: boolean, request: JsonObject | undefined): JsonObject {
  if (!stream) return WHOLE;
  const own = asObject(request?.["stream_options"]);
  return own === null ? STREAMED : { stream: true, stream_options: { ...EVERY_USAGE, ...own } };
}

const EVERY_USAGE: JsonObject = { include_usage: true, continuous_usage_stats: true };
const STREAMED: JsonObject = { stream: true, stream_options: EVERY_USAGE };
const WHOLE: JsonObject = { stream: false, stream_options: undefined };

function choices(n: JsonValue | undefined): number {
  return typeof n === "number" && n > 1 ? n : 1;
}

/** JSON text. @throws PromptseamError `PS_INVALID_REQUEST` */
export function stringify(members: JsonObject): string {
  try {
    return JSON.stringify(members);
  } catch {
    // The error of JSON.stringify names members of the request, which may be text of a prompt.
    throw new PromptseamError("PS_INVALID_REQUEST", "The request is not JSON: it holds a cycle or a BigInt.");
  }
}

/** JSON of an object without its closing brace, ready for one more member. */
function open(object: string): string {
  return object === "{}" ? "{" : `${object.slice(0, -1)},`;
}
