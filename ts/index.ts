/** promptseam: long LLM conversations that never pay twice for the same prompt. */

export { BlockHashes, type BlockHashOptions } from "./block-hashes.ts";
export { ERROR_CODES, type ErrorCode, type ErrorDetails, PromptseamError } from "./errors.ts";
export * from "./events.ts";
export {
  type Boundary,
  type DecodeOptions,
  DecodeStream,
  type EncodeOptions,
  type LoadOptions,
  Model,
  type ModelFiles,
  type ModelInfo,
  type RenderOptions,
  type RenderRequest,
} from "./model.ts";
export { Prompt, type PromptDiff } from "./prompt.ts";
export type { PrepareOptions, SeamOptions } from "./seam/options.ts";
export type {
  Certificate,
  Drift,
  EnvironmentField,
  Outcome,
  Reason,
  SampledSpan,
} from "./seam/outcome.ts";
export { type AppendRequest, Seam } from "./seam/seam.ts";
export type { SeamStats } from "./seam/stats.ts";
export type { Committed, Turn, TurnAnswer } from "./seam/turn.ts";
export { MemoryStore, type MemoryStoreOptions } from "./store/memory.ts";
export {
  type SqliteStats,
  SqliteStore,
  type SqliteStoreOptions,
  type Verification,
} from "./store/sqlite.ts";
export type {
  Artifact,
  Checkpoint,
  Commit,
  CommitStatus,
  ConversationInfo,
  Entry,
  ListOptions,
  MaybePromise,
  Store,
  StoreStats,
} from "./store/store.ts";
export * from "./vllm/index.ts";
