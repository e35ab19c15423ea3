/** One error type for everything that promptseam refuses or cannot do, told apart by a stable `code`. */

/**
 * Every code an error can carry. Codes never change their meaning; new ones may be added in a minor release.
 *
 * Input: the caller can repair these.
 * - `PS_INVALID_ARGUMENT`: an argument has the wrong type or is out of range.
 * - `PS_INVALID_JSON`: a request body is not JSON, or nested too deeply.
 * - `PS_INVALID_REQUEST`: a request is JSON but not a chat request (messages missing, wrong types, unknown role).
 * - `PS_INVALID_UNICODE`: text holds a lone surrogate, which no tokenizer can encode.
 * - `PS_INVALID_TOKEN_ID`: an id is not a u32, or lies outside the model's vocabulary.
 * - `PS_UNSUPPORTED_CONTENT`: a message holds content that cannot be rendered here (images, audio, files).
 * - `PS_TOO_LARGE`: an input is over its limit; the message names the limit.
 * - `PS_CONTEXT_OVERFLOW`: the prompt is longer than the model's context.
 *
 * Model:
 * - `PS_MODEL_NOT_FOUND`: no model folder or no cached snapshot there.
 * - `PS_MODEL_FILE`: a file of the model is missing, unreadable or broken.
 * - `PS_TOKENIZER_UNSUPPORTED`: the tokenizer is of a kind that neither engine loads.
 * - `PS_TEMPLATE_MISSING`: the model has no chat template and none was given.
 * - `PS_TEMPLATE_SYNTAX`: the chat template does not parse.
 * - `PS_TEMPLATE_RAISED`: the template refused the conversation (`raise_exception`); the message is the template's.
 * - `PS_TEMPLATE_FAILED`: the template failed while rendering.
 *
 * Running:
 * - `PS_OVERLOADED`: the worker pool's queue is full; retry later or raise its limit.
 * - `PS_ABORTED`: the caller's AbortSignal fired; `cause` is its reason.
 * - `PS_CLOSED`: the object was closed.
 * - `PS_ADDON`: the native addon could not be loaded.
 * - `PS_INTERNAL`: a bug in promptseam (a caught panic); please report it.
 *
 * Conversations:
 * - `PS_CONVERSATION_UNKNOWN`: an append to a conversation whose history is not, or no longer, known; send all messages.
 * - `PS_STORE`: a store cannot be read or written, or could not be asked for what a turn cannot do without.
 * - `PS_RECORD_REFUSED`: a record of a conversation is damaged, of another version, or cannot be decrypted.
 *
 * Server:
 * - `PS_CONNECT`: the server could not be reached, or the connection broke before an answer.
 * - `PS_TIMEOUT`: a deadline passed; `details.phase` says which.
 * - `PS_HTTP_STATUS`: the server answered with an error status; see `details.status`.
 * - `PS_SERVER`: the server reported an error inside a stream.
 * - `PS_PROTOCOL`: the answer was not what the protocol allows (HTML, broken JSON, invalid UTF-8, oversized line).
 * - `PS_STREAM_TRUNCATED`: the stream ended before the answer did.
 */
export const ERROR_CODES = [
  "PS_INVALID_ARGUMENT",
  "PS_INVALID_JSON",
  "PS_INVALID_REQUEST",
  "PS_INVALID_UNICODE",
  "PS_INVALID_TOKEN_ID",
  "PS_UNSUPPORTED_CONTENT",
  "PS_TOO_LARGE",
  "PS_CONTEXT_OVERFLOW",
  "PS_MODEL_NOT_FOUND",
  "PS_MODEL_FILE",
  "PS_TOKENIZER_UNSUPPORTED",
  "PS_TEMPLATE_MISSING",
  "PS_TEMPLATE_SYNTAX",
  "PS_TEMPLATE_RAISED",
  "PS_TEMPLATE_FAILED",
  "PS_OVERLOADED",
  "PS_ABORTED",
  "PS_CLOSED",
  "PS_ADDON",
  "PS_INTERNAL",
  "PS_CONVERSATION_UNKNOWN",
  "PS_STORE",
  "PS_RECORD_REFUSED",
  "PS_CONNECT",
  "PS_TIMEOUT",
  "PS_HTTP_STATUS",
  "PS_SERVER",
  "PS_PROTOCOL",
  "PS_STREAM_TRUNCATED",
] as const;

/** A stable error code; see {@link ERROR_CODES} for what each means. */
export type ErrorCode = (typeof ERROR_CODES)[number];

/** Facts about an error that a program may act on. Never prompt text, never a secret. */
export interface ErrorDetails {
  /** HTTP status of the server's answer. */
  readonly status?: number;
  /** The server's own error type, such as `BadRequestError`. */
  readonly type?: string;
  /** The field of the request that the server's error names. */
  readonly param?: string;
  /** What was being waited for when a deadline passed. */
  readonly phase?: "connect" | "first_token" | "between_tokens" | "answer";
  /** Tokens in the prompt that was refused. */
  readonly promptTokens?: number;
  /** The model's context in tokens. */
  readonly maxModelLength?: number;
  /** The limit that was passed, in the unit that the message names. */
  readonly limit?: number;
  /** Whether the same request may be sent again: nothing of its answer reached the caller. */
  readonly retryable?: boolean;
}

const MARK = Symbol.for("promptseam.error");

/** The error that every function of promptseam throws or rejects with. */
export class PromptseamError extends Error {
  override readonly name = "PromptseamError";
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; details?: ErrorDetails } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
    Object.defineProperty(this, MARK, { value: true });
  }

  /** Whether `value` is a PromptseamError, also one made by another copy of this package. */
  static isInstance(value: unknown): value is PromptseamError {
    return typeof value === "object" && value !== null && MARK in value;
  }
}

/** The error for an abort: `cause` is the signal's reason. */
export function abortError(signal: AbortSignal): PromptseamError {
  return new PromptseamError("PS_ABORTED", "The operation was aborted by its AbortSignal.", {
    cause: signal.reason,
  });
}
