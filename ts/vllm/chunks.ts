/** What an answer is made of: typed chunks in the order they arrive, whatever way in produced them. */

import type { JsonValue } from "./json.ts";

/** The first event of the answer is there. Comes once, before every other chunk, and nothing is retried after it. */
export interface StartChunk {
  readonly type: "start";
  /** The server's id of the request. */
  readonly requestId: string | null;
  /** Length in tokens of the prompt that the engine saw; null where the server has not said it yet. */
  readonly promptTokens: number | null;
}

/** A piece of the visible answer. */
export interface TextChunk {
  readonly type: "text";
  /** Which choice (0 unless `n` > 1). */
  readonly index: number;
  readonly text: string;
}

/** A piece of the reasoning, as the server's reasoning parser cut it out. */
export interface ReasoningChunk {
  readonly type: "reasoning";
  readonly index: number;
  readonly text: string;
}

/** A piece of a tool call: the first one of a call carries id and name, the pieces of `arguments` join to JSON text. */
export interface ToolCallChunk {
  readonly type: "toolCall";
  readonly index: number;
  /** Position of the call in the message. */
  readonly call: number;
  readonly id: string | null;
  readonly name: string | null;
  readonly arguments: string;
}

/** Sampled ids. Only where the answer has no text beside them (generate with `output_mode: "tokens"`). */
export interface TokensChunk {
  readonly type: "tokens";
  readonly index: number;
  readonly ids: Uint32Array;
}

/** Log probabilities as the server formats them; only when the request asked for them. */
export interface LogprobsChunk {
  readonly type: "logprobs";
  readonly index: number;
  readonly logprobs: JsonValue;
}

/** A choice ended. */
export interface FinishChunk {
  readonly type: "finish";
  readonly index: number;
  /** `stop`, `length`, `tool_calls`, `abort`, ... as the server says it. */
  readonly reason: string;
  /** The stop string or stop token id that ended it. */
  readonly stopReason: string | number | null;
}

/** The final count. Comes at most once, usually after `finish`. */
export interface UsageChunk {
  readonly type: "usage";
  readonly usage: Usage;
}

/** Token counts of one request. */
export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Prompt tokens taken from the prefix cache; null unless the server runs with --enable-prompt-tokens-details. */
  readonly cachedTokens: number | null;
  readonly reasoningTokens: number | null;
}

/** One piece of an answer. */
export type Chunk =
  | StartChunk
  | TextChunk
  | ReasoningChunk
  | ToolCallChunk
  | TokensChunk
  | LogprobsChunk
  | FinishChunk
  | UsageChunk;
