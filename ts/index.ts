/** promptseam: long LLM conversations that never pay twice for the same prompt. */

export { ERROR_CODES, type ErrorCode, type ErrorDetails, PromptseamError } from "./errors.ts";
export * from "./events.ts";
export {
  type Boundary,
  type ChatRequest,
  type DecodeOptions,
  DecodeStream,
  type EncodeOptions,
  type LoadOptions,
  Model,
  type ModelFiles,
  type ModelInfo,
  type RenderOptions,
} from "./model.ts";
export { Prompt, type PromptDiff } from "./prompt.ts";
export * from "./vllm/index.ts";
