/** `promptseam/vllm`: the client for vLLM servers. */

export { Answer, type CollectedAnswer, type ToolCall } from "./answer.ts";
export type * from "./chunks.ts";
export { type ServedModel, VllmClient } from "./client.ts";
export type { AnswerFacts } from "./facts.ts";
export type { JsonObject, JsonValue } from "./json.ts";
export type { CallOptions, GenerateOptions, Timeouts, VllmClientOptions } from "./options.ts";
export type {
  ChatMessage,
  ChatOptions,
  ChatRequest,
  CompletionParams,
  GenerateRequestOptions,
  SamplingParams,
} from "./requests.ts";
export type { WirePrompt } from "./wire.ts";
