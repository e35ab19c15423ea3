/** Everything that a server, or what stands before it, can do wrong; the test server is told to do it. */

import { HANDLE_CHAT_PATH } from "../vllm/handle.ts";

/** One way to fail. Events are counted in the stream: 0 is before the first one. */
export type Fault =
  /** The connection is reset (RST). */
  | { readonly kind: "reset"; readonly when: "before_headers" | "after_headers" }
  | { readonly kind: "reset"; readonly when: "mid_stream"; readonly afterEvents?: number }
  /** Nothing more is sent, and the connection stays open. */
  | { readonly kind: "hang"; readonly when: "before_headers" | "first_token" }
  | { readonly kind: "hang"; readonly when: "between_tokens"; readonly afterEvents?: number }
  /** An error status with the body that vLLM sends with it, or one of your own. */
  | {
      readonly kind: "status";
      readonly status: number;
      readonly body?: string;
      readonly contentType?: string;
    }
  /** A proxy's page instead of an answer. Status default 200. */
  | { readonly kind: "html"; readonly status?: number; readonly contentType?: string }
  /** An error object in the stream, then `[DONE]`. */
  | { readonly kind: "error_event"; readonly afterEvents?: number; readonly message?: string }
  /** An event (or a whole answer) whose JSON stops in the middle, then the end. */
  | { readonly kind: "truncated_json"; readonly afterEvents?: number }
  /** The stream ends without `[DONE]`: after so many events, or (default) after the last one. */
  | { readonly kind: "missing_done"; readonly afterEvents?: number }
  /** The bytes leave in pieces of this size, each in its own chunk; 1 cuts every character and line. */
  | { readonly kind: "chunked"; readonly bytes: number; readonly delayMs?: number }
  /** Pieces that end inside a character or a line wherever there is one. */
  | { readonly kind: "cut_characters" }
  /** A keep-alive comment of this many bytes before the first event. */
  | { readonly kind: "long_comment"; readonly bytes: number }
  /** One more text delta of this many bytes, in one line. */
  | { readonly kind: "long_line"; readonly bytes: number }
  /** Comments in place of the answer, for ever: bytes without progress. */
  | { readonly kind: "only_comments"; readonly delayMs: number }
  /** The right answer under a wrong content type. */
  | { readonly kind: "content_type"; readonly value: string }
  /** `kv_transfer_params.prompt_token_ids` is not known: the messages are rendered. */
  | { readonly kind: "ids_ignored" }
  /** The prompt handle is gone, whatever the request names; only on the handle route. */
  | { readonly kind: "handle_miss" }
  /** Usage comes with the last event only, as from servers that do not know `continuous_usage_stats`. */
  | { readonly kind: "late_usage" }
  /** A proxy that keeps the stream until its end, and then sends it at once. */
  | { readonly kind: "buffered" };

/** Which requests fail. */
export interface FaultOptions {
  /** How many requests; `Infinity` until {@link FaultPlan.clear}. Default 1. */
  readonly times?: number;
  /** Only requests to this path. Default: those that generate. */
  readonly path?: string;
}

const GENERATING = new Set([
  "/v1/chat/completions",
  "/v1/completions",
  "/inference/v1/generate",
  HANDLE_CHAT_PATH,
]);

/** The faults that are still to be served, first come first. */
export class FaultPlan {
  #planned: { fault: Fault; left: number; path: string | undefined }[] = [];

  add(fault: Fault, options: FaultOptions = {}): void {
    this.#planned.push({ fault, left: options.times ?? 1, path: options.path });
  }

  /** The fault for a request, if it is to fail. */
  take(path: string): Fault | null {
    const planned = this.#planned.find((plan) =>
      plan.path === undefined ? GENERATING.has(path) : plan.path === path,
    );
    if (planned === undefined) return null;
    planned.left--;
    if (planned.left <= 0) this.#planned = this.#planned.filter((plan) => plan !== planned);
    return planned.fault;
  }

  clear(): void {
    this.#planned = [];
  }
}
