/** Turns the JSON of one event, or of a whole answer, into chunks and facts. Shapes as of vLLM 0.32. */

import type { Chunk, Usage } from "./chunks.ts";
import type { AnswerFacts } from "./facts.ts";
import { serverError } from "./failure.ts";
import { readReference } from "./handle.ts";
import {
  asArray,
  asCount,
  asObject,
  asString,
  type JsonObject,
  type JsonValue,
  parseObject,
} from "./json.ts";
import { readEvent } from "./wire.ts";

/** How an answer is read. */
export interface Reading {
  /** The JSON is a whole answer, not one event of a stream. */
  readonly whole: boolean;
  /** The caller asked for log probabilities, so they become chunks. */
  readonly logprobs: boolean;
  /** Takes out of a server's error message what must not stand in an error. */
  readonly redact: (text: string) => string;
}

/**
 * Reads one event of a stream or one answer that came in one piece.
 *
 * Chunks come in the order text, reasoning and calls were put into the event: reasoning, text, calls, then finish, then
 * usage. Per-token usage (`continuous_usage_stats`) goes to the facts only; the `usage` chunk is the final count.
 *
 * @throws PromptseamError `PS_SERVER` for an error object, `PS_PROTOCOL` for JSON that is broken or no answer.
 */
export function readAnswer(data: Uint8Array, facts: AnswerFacts, reading: Reading): Chunk[] {
  const event = readEvent(data);
  const object = parseObject(event.json);
  if (object["error"] !== undefined && object["error"] !== null) {
    throw serverError(object, reading.redact);
  }
  facts.requestId ??= asString(object["id"]) ?? asString(object["request_id"]);
  facts.model ??= asString(object["model"]);
  facts.promptTokenIds ??= event.promptTokenIds;
  facts.reference ??= readReference(object["prompt_cache_ref"]);

  const chunks: Chunk[] = [];
  const choices = asArray(object["choices"]);
  for (let i = 0; i < choices.length; i++) {
    const choice = asObject(choices[i]);
    if (choice !== null) readChoice(choice, event.tokenIds[i] ?? null, facts, reading, chunks);
  }
  const usage = readUsage(object["usage"]);
  if (usage !== null) {
    facts.setUsage(usage);
    if (reading.whole || choices.length === 0) chunks.push({ type: "usage", usage });
  }
  return chunks;
}

function readChoice(
  choice: JsonObject,
  ids: Uint32Array | null,
  facts: AnswerFacts,
  reading: Reading,
  chunks: Chunk[],
): void {
  const index = asCount(choice["index"]) ?? 0;
  const logprobs = choice["logprobs"] ?? null;
  const sampled = ids ?? idsOfLogprobs(logprobs);
  if (sampled.length > 0) facts.addSampled(index, sampled);

  const message = asObject(choice["delta"]) ?? asObject(choice["message"]);
  if (message !== null) readMessage(message, index, chunks);
  const text = asString(choice["text"]);
  if (text) chunks.push({ type: "text", index, text });
  else if (text === null && message === null && ids !== null && ids.length > 0) {
    chunks.push({ type: "tokens", index, ids });
  }
  if (reading.logprobs && logprobs !== null) chunks.push({ type: "logprobs", index, logprobs });

  const reason = asString(choice["finish_reason"]);
  if (reason !== null) {
    facts.setFinished(index, reason);
    const stop = choice["stop_reason"];
    const stopReason = typeof stop === "string" || typeof stop === "number" ? stop : null;
    chunks.push({ type: "finish", index, reason, stopReason });
  }
}

function readMessage(message: JsonObject, index: number, chunks: Chunk[]): void {
  const reasoning = asString(message["reasoning"]) ?? asString(message["reasoning_content"]);
  if (reasoning) chunks.push({ type: "reasoning", index, text: reasoning });
  const content = asString(message["content"]);
  if (content) chunks.push({ type: "text", index, text: content });
  const calls = asArray(message["tool_calls"]);
  for (let i = 0; i < calls.length; i++) {
    const call = asObject(calls[i]);
    if (call === null) continue;
    const fn = asObject(call["function"]);
    chunks.push({
      type: "toolCall",
      index,
      call: asCount(call["index"]) ?? i,
      id: asString(call["id"]),
      name: asString(fn?.["name"]),
      arguments: asString(fn?.["arguments"]) ?? "",
    });
  }
}

function readUsage(value: JsonValue | undefined): Usage | null {
  const usage = asObject(value);
  const promptTokens = asCount(usage?.["prompt_tokens"]);
  if (usage === null || promptTokens === null) return null;
  return {
    promptTokens,
    completionTokens: asCount(usage["completion_tokens"]) ?? 0,
    cachedTokens: asCount(asObject(usage["prompt_tokens_details"])?.["cached_tokens"]),
    reasoningTokens: asCount(asObject(usage["completion_tokens_details"])?.["reasoning_tokens"]),
  };
}

const TOKEN_ID = "token_id:";

/** Ids out of `return_tokens_as_token_ids`: chat has `content[].token`, completions `tokens[]`; other tokens give none. */
function idsOfLogprobs(logprobs: JsonValue): number[] {
  const object = asObject(logprobs);
  const tokens = asArray(object?.["tokens"]).concat(
    asArray(object?.["content"]).map((entry) => asObject(entry)?.["token"] ?? null),
  );
  const ids: number[] = [];
  for (const token of tokens) {
    if (typeof token !== "string" || !token.startsWith(TOKEN_ID)) continue;
    const id = Number(token.slice(TOKEN_ID.length));
    if (Number.isInteger(id) && id >= 0 && id <= 0xffffffff) ids.push(id);
  }
  return ids;
}
