/** Reading a request as vLLM 0.32 does: what the engine is given, or the error that the client gets. */

import type { JsonObject, JsonValue } from "../vllm/json.ts";
import { asArray, asCount, asObject, asString } from "../vllm/json.ts";
import { idsOf, type TestModel } from "./model.ts";

/** An error status with vLLM's message. */
export class Refusal extends Error {
  readonly status: number;
  /** Further members of the error object, or others in place of the usual ones. */
  readonly members: JsonObject;

  constructor(status: number, message: string, members: JsonObject = {}) {
    super(message);
    this.status = status;
    this.members = members;
  }
}

/** Which endpoint was asked. */
export type Way = "chat" | "completions" | "generate";

/** What the request asks for, in one form for all ways. */
export interface ParsedRequest {
  readonly way: Way;
  readonly ids: Uint32Array;
  /** The ids came with the request; false where the messages were rendered. */
  readonly tokenIn: boolean;
  /** The prompt came by handle: it is never echoed. */
  readonly byHandle: boolean;
  readonly salt: string | null;
  readonly maxTokens: number;
  readonly stream: boolean;
  readonly usage: "none" | "last" | "every";
  readonly returnTokenIds: boolean;
  /** Each sampled token with `token_id:N` in place of its text. */
  readonly logprobs: boolean;
  readonly tools: boolean;
  readonly choices: number;
  /** `tokens`: the generate way without text. */
  readonly outputMode: "text" | "tokens";
}

/** The limits a request is checked against. */
export interface Limits {
  readonly modelName: string;
  readonly maxModelLength: number;
  readonly vocabularySize: number;
  /** The server does not know `kv_transfer_params.prompt_token_ids`. */
  readonly ignoresIds: boolean;
  /** Usage is given once, at the end. */
  readonly lateUsage: boolean;
}

/**
 * @param given the prompt, where it came by handle
 * @throws Refusal
 */
export async function parseRequest(
  way: Way,
  body: JsonObject,
  model: TestModel,
  limits: Limits,
  given?: Uint32Array,
): Promise<ParsedRequest> {
  const asked = asString(body["model"]);
  if (asked !== null && asked !== limits.modelName) {
    throw new Refusal(404, `The model \`${asked}\` does not exist.`);
  }
  const params = way === "generate" ? (asObject(body["sampling_params"]) ?? {}) : body;
  const byHandle = given !== undefined;
  const { ids, tokenIn } =
    byHandle && !limits.ignoresIds
      ? { ids: given, tokenIn: true }
      : await promptIds(way, body, model, limits);
  if (ids.length === 0) throw new Refusal(400, "The prompt must hold at least one token.");
  const askedTokens = asCount(params["max_completion_tokens"]) ?? asCount(params["max_tokens"]);
  const room = limits.maxModelLength - ids.length;
  if (room <= 0 || (askedTokens ?? 0) > room) {
    throw new Refusal(
      400,
      `This model's maximum context length is ${limits.maxModelLength} tokens. However, you requested ` +
        `${askedTokens ?? 0} output tokens and your prompt contains ${ids.length} input tokens, for a total of ` +
        `${ids.length + (askedTokens ?? 0)} tokens. Please reduce the length of the input prompt.`,
    );
  }
  const options = asObject(body["stream_options"]);
  return {
    way,
    ids,
    tokenIn,
    byHandle,
    salt: asString(body["cache_salt"]),
    maxTokens: askedTokens ?? (way === "completions" ? 16 : room),
    stream: body["stream"] === true,
    usage: limits.lateUsage ? "last" : usageOf(options),
    returnTokenIds: body["return_token_ids"] === true,
    logprobs: body["return_tokens_as_token_ids"] === true,
    tools: asArray(body["tools"]).length > 0 && body["tool_choice"] !== "none",
    choices: asCount(params["n"]) ?? 1,
    outputMode: body["output_mode"] === "tokens" ? "tokens" : "text",
  };
}

function usageOf(options: JsonObject | null): ParsedRequest["usage"] {
  if (options?.["include_usage"] !== true) return "none";
  return options["continuous_usage_stats"] === true ? "every" : "last";
}

async function promptIds(
  way: Way,
  body: JsonObject,
  model: TestModel,
  limits: Limits,
): Promise<{ ids: Uint32Array; tokenIn: boolean }> {
  if (way === "generate") return { ids: checkedIds(body["token_ids"], "token_ids", limits), tokenIn: true };
  if (way === "completions") {
    const { prompt } = body;
    if (typeof prompt === "string") return { ids: idsOf(await model.encode(prompt)), tokenIn: false };
    return { ids: checkedIds(prompt, "prompt", limits), tokenIn: true };
  }
  const given = asObject(body["kv_transfer_params"])?.["prompt_token_ids"];
  if (given !== undefined && given !== null && !limits.ignoresIds) {
    return { ids: checkedIds(given, "kv_transfer_params.prompt_token_ids", limits), tokenIn: true };
  }
  if (!Array.isArray(body["messages"]))
    throw new Refusal(400, "[{'type': 'missing', 'loc': ('body', 'messages')}]");
  try {
    return { ids: idsOf(await model.render(body)), tokenIn: false };
  } catch (error) {
    throw new Refusal(400, error instanceof Error ? error.message : "The request cannot be rendered.");
  }
}

/** Ids out of a body. @throws Refusal */
export function checkedIds(value: JsonValue | undefined, name: string, limits: Limits): Uint32Array {
  if (!Array.isArray(value)) throw new Refusal(400, `${name} must be a list of integers.`);
  for (const id of value) {
    if (typeof id !== "number" || !Number.isInteger(id))
      throw new Refusal(400, `${name} must be a list of integers.`);
    if (id < 0 || id >= limits.vocabularySize) throw new Refusal(400, `Token id ${id} is out of vocabulary`);
  }
  return Uint32Array.from(value as number[]);
}
