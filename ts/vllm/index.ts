/** `promptseam/vllm`: the client for vLLM servers. */

export { Answer, type CollectedAnswer, type ToolCall } from "./answer.ts";
export type { Capabilities, Proof, TransportName } from "./capabilities.ts";
export type * from "./chunks.ts";
export { type ServedModel, type TokenizeOptions, VllmClient } from "./client.ts";
export type { AnswerFacts } from "./facts.ts";
export type { HandleOptions, HandleReference, HandleServer, PromptHandle } from "./handle.ts";
export type { JsonObject, JsonValue } from "./json.ts";
export type { MetricSample, Metrics } from "./metrics.ts";
export type { CallOptions, GenerateOptions, Timeouts, VllmClientOptions } from "./options.ts";
export type {
  ChatMessage,
  ChatOptions,
  ChatRequest,
  CompletionParams,
  GenerateRequestOptions,
  SamplingParams,
} from "./requests.ts";
export type { DifferenceKind, VerifyDifference, VerifyOptions, VerifyReport } from "./verify.ts";
export type { WirePrompt } from "./wire.ts";
