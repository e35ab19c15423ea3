/** Options of the client and of its calls, checked once and given their defaults. */

import type { Dispatcher } from "undici";
import { PromptseamError } from "../errors.ts";
import { DEFAULT_MAX_EVENT_BYTES } from "./sse.ts";

/** Deadlines in milliseconds; `Infinity` for none. Time in which the caller does not read does not count. */
export interface Timeouts {
  /** Until a connection stands. Default 10,000. A `dispatcher` of your own keeps its own. */
  readonly connectMs?: number;
  /** From sending to the first event, queueing and prefill included; starts anew with each retry. Default 300,000. */
  readonly firstTokenMs?: number;
  /** Between two events. Default 60,000. */
  readonly betweenTokensMs?: number;
  /** For an answer that is not streamed, from sending to its end. Default 600,000. */
  readonly answerMs?: number;
  /** For calls that generate nothing (models, render, metrics and so on). Default 10,000. */
  readonly controlMs?: number;
}

/** Options of {@link VllmClient}. */
export interface VllmClientOptions {
  /** Where the server is: `http://host:8000`, with a path prefix if there is one; a trailing `/v1` is dropped. */
  readonly baseUrl: string | URL;
  /** Sent as `authorization: Bearer ...`. */
  readonly apiKey?: string;
  readonly timeouts?: Timeouts;
  /**
   * How often a request is sent again after a refused or reset connection, a 500 or a 503 (as the status, or as the first event
   * of a stream), as long as nothing of its answer arrived; never after any other failure. Default 0.
   */
  readonly retries?: number;
  /** Wait before the first retry, doubled for each further one, with jitter between a half and the whole. Default 100. */
  readonly retryDelayMs?: number;
  /** Longest event of a stream in bytes; above it `PS_PROTOCOL`. Default 16 MiB. */
  readonly maxEventBytes?: number;
  /** Longest answer that is not streamed, in bytes; above it `PS_PROTOCOL`. Default 64 MiB. */
  readonly maxAnswerBytes?: number;
  /** Headers for every request. */
  readonly headers?: Readonly<Record<string, string>>;
  /** An undici dispatcher (a proxy agent, a pool, a mock). The client does not close it. Default: an Agent of its own. */
  readonly dispatcher?: Dispatcher;
}

/** Options of one call. */
export interface CallOptions {
  /** Aborts the call: it rejects with `PS_ABORTED` and its connection is closed, which makes vLLM drop the request. */
  readonly signal?: AbortSignal;
  /** Overrides the client's, member by member. */
  readonly timeouts?: Timeouts;
  readonly retries?: number;
  /** Further headers. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as `x-request-id`: vLLM makes it the end of its own request id. */
  readonly requestId?: string;
}

/** Options of one generating call. */
export interface GenerateOptions extends CallOptions {
  /** Whether the answer comes token by token. Default true. Not streamed, the same chunks come all at the end. */
  readonly stream?: boolean;
  /**
   * How the server is asked for the ids it sampled:
   * - `"none"` (default): not at all. The generate way gives them anyway.
   * - `"token_ids"`: `return_token_ids`. On the chat and completion ways the first event then echoes the prompt's ids.
   * - `"logprobs"`: `logprobs` with `return_tokens_as_token_ids`, which has no echo but more bytes for each token.
   * - `"auto"`: by handle, where nothing is echoed, as `"token_ids"`; else as `"logprobs"`.
   */
  readonly sampledIds?: "none" | "token_ids" | "logprobs" | "auto";
}

export interface ResolvedOptions {
  readonly timeouts: Required<Timeouts>;
  readonly retries: number;
  readonly retryDelayMs: number;
  readonly maxEventBytes: number;
  readonly maxAnswerBytes: number;
}

const DEFAULT_TIMEOUTS: Required<Timeouts> = {
  connectMs: 10_000,
  firstTokenMs: 300_000,
  betweenTokensMs: 60_000,
  answerMs: 600_000,
  controlMs: 10_000,
};

/** The client's options with defaults. @throws PromptseamError `PS_INVALID_ARGUMENT` */
export function resolveOptions(options: VllmClientOptions): ResolvedOptions {
  return {
    timeouts: resolveTimeouts(DEFAULT_TIMEOUTS, options.timeouts),
    retries: count("retries", options.retries ?? 0, 0),
    retryDelayMs: count("retryDelayMs", options.retryDelayMs ?? 100, 0),
    maxEventBytes: count("maxEventBytes", options.maxEventBytes ?? DEFAULT_MAX_EVENT_BYTES, 1),
    maxAnswerBytes: count("maxAnswerBytes", options.maxAnswerBytes ?? 64 * 1024 * 1024, 1),
  };
}

/** The client's settings with those of one call on top. @throws PromptseamError `PS_INVALID_ARGUMENT` */
export function overrideOptions(base: ResolvedOptions, call: CallOptions): ResolvedOptions {
  if (call.timeouts === undefined && call.retries === undefined) return base;
  return {
    ...base,
    timeouts: resolveTimeouts(base.timeouts, call.timeouts),
    retries: count("retries", call.retries ?? base.retries, 0),
  };
}

function resolveTimeouts(base: Required<Timeouts>, own: Timeouts | undefined): Required<Timeouts> {
  const timeouts = { ...base };
  for (const name of Object.keys(base) as (keyof Timeouts)[]) {
    const value = own?.[name];
    if (value === undefined) continue;
    if (typeof value !== "number" || !(value > 0)) {
      throw new PromptseamError("PS_INVALID_ARGUMENT", `timeouts.${name} must be a number above 0.`);
    }
    timeouts[name] = value;
  }
  return timeouts;
}

function count(name: string, value: number, least: number): number {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new PromptseamError("PS_INVALID_ARGUMENT", `${name} must be an integer of at least ${least}.`);
  }
  return value;
}

/** The headers of a call. */
export function callHeaders(options: CallOptions): Record<string, string> {
  return {
    ...options.headers,
    ...(options.requestId === undefined ? {} : { "x-request-id": options.requestId }),
  };
}
