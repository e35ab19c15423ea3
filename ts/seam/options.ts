/** Options of a Seam and of its turns, checked once and given their defaults. */

import { PromptseamError } from "../errors.ts";
import type { Model } from "../model.ts";
import { MemoryStore } from "../store/memory.ts";
import type { Store } from "../store/store.ts";
import type { VllmClient } from "../vllm/client.ts";

/** Options of {@link Seam}. */
export interface SeamOptions {
  readonly model: Model;
  /** Sends turns; needed for `turn.stream()` only. */
  readonly client?: VllmClient;
  /** Where conversations are kept. Default: in memory, 256 MiB. */
  readonly store?: Store;
  /**
   * - `"on"` (default)
   * - `"observe"`: the request goes out as the client sent it; what would have been sent is planned beside it.
   * - `"off"`: the server renders; conversations are still recorded.
   */
  readonly mode?: "on" | "observe" | "off";
  /**
   * - `"rendered"` (default): every prompt equals the full render, id for id.
   * - `"sampled"`: the model's own ids stand for its messages, and prompts equal the full render outside of them. The model's
   *   context must hold these, also where they are more than the full render's.
   */
  readonly history?: "rendered" | "sampled";
  /**
   * What becomes of reasoning that the client leaves out of the history:
   * - `"as_sent"` (default): it stays out.
   * - `"restore"`: inside a tool loop the stored reasoning is put back.
   */
  readonly omittedReasoning?: "as_sent" | "restore";
  /**
   * - `"conversation"` (default): the date that a template prints is that of the first turn.
   * - `"follow"`: it changes at midnight, and the prompt is rendered anew then.
   */
  readonly clock?: "conversation" | "follow";
  /** The model's name and revision, where a change of them must not go unnoticed. Default: none. */
  readonly revision?: string;
  /** How many certified prompts are compared with the full render. */
  readonly shadow?: {
    /** All of a class until so many have passed. Default 64. */
    readonly first?: number;
    /** Then this share, from 0 to 1. Default 1/16. */
    readonly share?: number;
  };
  /** In `observe` mode, the share of plans that is compared with the server's render endpoint. Default 1/16. */
  readonly observeShare?: number;
  /**
   * How `stream()` asks for the ids that the model sampled, for drift and `history: "sampled"`. Default `"auto"`; see
   * `GenerateOptions`.
   */
  readonly sampledIds?: "none" | "token_ids" | "logprobs" | "auto";
  /**
   * How `stream()` sends ids:
   * - `"auto"` (default): by handle from 4,096 tokens on, where the server has the plugin and its handles do not keep missing;
   *   else beside the messages.
   * - `"handle"`: the same for prompts of any length.
   * - `"chat_ids"`: always beside the messages.
   */
  readonly transport?: "auto" | "handle" | "chat_ids";
  /** Milliseconds for which an artifact may be used. Default: no end. */
  readonly ttlMs?: number;
  /** The same for tool rounds. Default one hour. */
  readonly toolRoundTtlMs?: number;
  /** Milliseconds that a store may take; then the turn goes on without it. Default 250. */
  readonly storeTimeoutMs?: number;
  /** Bytes of conversations that are kept at hand beside a store that is not in memory. Default 256 MiB. */
  readonly cacheBytes?: number;
  /**
   * The engines whose prefix cache the requests of this Seam share. Requests of a named tenant get a `cache_salt` of that tenant's
   * for this domain, which the store keeps, unless they bring their own. Default: the client's base URL, else `""`; `false` adds
   * no salt.
   */
  readonly cacheDomain?: string | false;
}

/** Options of {@link Seam.prepare}. */
export interface PrepareOptions {
  /** The conversation. Without one, turns are found by their history only. */
  readonly conversation?: string;
  /** Whose conversation it is. Tenants never see each other's. Default `""`. */
  readonly tenant?: string;
  /** Where a conversation that begins here belongs, for `store.list`. Default `""`. */
  readonly project?: string;
  /** The time that the template may print. Default: now. */
  readonly now?: Date;
  /** The adapter that the request's model stands for, if any. */
  readonly lora?: string;
  readonly signal?: AbortSignal | undefined;
}

export interface ResolvedSeamOptions {
  readonly client: VllmClient | undefined;
  readonly store: Store;
  readonly mode: "on" | "observe" | "off";
  readonly sampled: boolean;
  readonly restoreReasoning: boolean;
  readonly followClock: boolean;
  readonly revision: string;
  readonly shadowFirst: number;
  /** One in so many; 0 for none. */
  readonly shadowEvery: number;
  readonly observeShare: number;
  readonly sampledIds: "none" | "token_ids" | "logprobs" | "auto";
  readonly transport: "auto" | "handle" | "chat_ids";
  readonly ttlMs: number;
  readonly toolRoundTtlMs: number;
  readonly storeTimeoutMs: number;
  readonly cacheBytes: number;
  /** Undefined for no salts. */
  readonly cacheDomain: string | undefined;
}

/** @throws PromptseamError `PS_INVALID_ARGUMENT` */
export function resolveSeamOptions(options: SeamOptions): ResolvedSeamOptions {
  const share = within("shadow.share", options.shadow?.share ?? 1 / 16, 0, 1);
  return {
    client: options.client,
    store: options.store ?? new MemoryStore(),
    mode: oneOf("mode", options.mode ?? "on", ["on", "observe", "off"]),
    sampled: oneOf("history", options.history ?? "rendered", ["rendered", "sampled"]) === "sampled",
    restoreReasoning:
      oneOf("omittedReasoning", options.omittedReasoning ?? "as_sent", ["as_sent", "restore"]) === "restore",
    followClock: oneOf("clock", options.clock ?? "conversation", ["conversation", "follow"]) === "follow",
    revision: options.revision ?? "",
    shadowFirst: Math.floor(within("shadow.first", options.shadow?.first ?? 64, 0, 0xffff_ffff)),
    shadowEvery: share === 0 ? 0 : Math.round(1 / share),
    observeShare: within("observeShare", options.observeShare ?? 1 / 16, 0, 1),
    sampledIds: oneOf("sampledIds", options.sampledIds ?? "auto", ["none", "token_ids", "logprobs", "auto"]),
    transport: oneOf("transport", options.transport ?? "auto", ["auto", "handle", "chat_ids"]),
    ttlMs: within("ttlMs", options.ttlMs ?? Number.POSITIVE_INFINITY, 1, Number.POSITIVE_INFINITY),
    toolRoundTtlMs: within(
      "toolRoundTtlMs",
      options.toolRoundTtlMs ?? 3_600_000,
      1,
      Number.POSITIVE_INFINITY,
    ),
    storeTimeoutMs: within("storeTimeoutMs", options.storeTimeoutMs ?? 250, 1, Number.POSITIVE_INFINITY),
    cacheBytes: within("cacheBytes", options.cacheBytes ?? 256 * 1024 * 1024, 0, Number.POSITIVE_INFINITY),
    cacheDomain: domainOf(options),
  };
}

function domainOf({ cacheDomain, client }: SeamOptions): string | undefined {
  if (cacheDomain === false) return undefined;
  return cacheDomain ?? client?.baseUrl ?? "";
}

function oneOf<T extends string>(name: string, value: T, known: readonly T[]): T {
  if (known.includes(value)) return value;
  throw new PromptseamError("PS_INVALID_ARGUMENT", `${name} must be one of ${known.join(", ")}.`);
}

function within(name: string, value: number, lowest: number, highest: number): number {
  if (typeof value === "number" && value >= lowest && value <= highest) return value;
  throw new PromptseamError("PS_INVALID_ARGUMENT", `${name} must be a number from ${lowest} to ${highest}.`);
}
