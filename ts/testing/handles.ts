/** The prompt handles of the promptseam-vllm plugin: what is kept, for whom, and what a request makes of it. */

import { randomBytes } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { Prompt } from "../prompt.ts";
import { HANDLES_PATH, TENANT_HEADER } from "../vllm/handle.ts";
import { asCount, asObject, asString, type JsonObject, type JsonValue } from "../vllm/json.ts";
import { checkedIds, type Limits, Refusal } from "./requests.ts";

/** The handles of a test server, to be looked at and disturbed. */
export interface ServerHandles {
  /** Whether the plugin is loaded; without it its routes are not found. */
  loaded: boolean;
  /** How many are kept. */
  readonly size: number;
  /** Forgets all of them, as an eviction does. */
  clear(): void;
}

/** A reference as the protocol writes it. */
export interface WireReference {
  readonly id: string;
  readonly token_count: number;
  readonly token_hash: string;
}

interface Kept {
  readonly ids: Uint32Array;
  readonly owner: string;
  expires: number;
}

/** 404: the answer is the same for every cause, but a wrong count or hash of one's own handle. */
function miss(reason?: string): Refusal {
  const more = reason === undefined ? {} : { reason };
  return new Refusal(404, "No prompt is kept for this reference. Send all token ids.", {
    type: "PromptHandleMiss",
    ...more,
  });
}

export class HandleStore implements ServerHandles {
  loaded: boolean;
  readonly #ttlMs: number;
  readonly #modelName: string;
  readonly #kept = new Map<string, Kept>();

  constructor(options: { loaded: boolean; ttlMs: number; modelName: string }) {
    this.loaded = options.loaded;
    this.#ttlMs = options.ttlMs;
    this.#modelName = options.modelName;
  }

  get size(): number {
    return this.#kept.size;
  }

  clear(): void {
    this.#kept.clear();
  }

  /** Whose handles a request may name. */
  owner(headers: IncomingHttpHeaders, body: JsonObject): string {
    const model = asString(body["model"]) ?? this.#modelName;
    return JSON.stringify([headers[TENANT_HEADER] ?? "", model, asString(body["cache_salt"])]);
  }

  put(owner: string, ids: Uint32Array): WireReference {
    const id = randomBytes(24).toString("base64url");
    this.#kept.set(id, { ids, owner, expires: Date.now() + this.#ttlMs });
    return { id, token_count: ids.length, token_hash: hashOf(ids) };
  }

  /** The prompt of a chat: the prefix that is named, and the ids that follow. @throws Refusal */
  prompt(owner: string, body: JsonObject, limits: Limits): Uint32Array {
    for (const member of ["use_beam_search", "truncate_prompt_tokens", "echo"])
      if (body[member]) throw new Refusal(400, `${member} does not go with prompt handles.`);
    const appended = checkedIds(body["append_token_ids"], "append_token_ids", limits);
    if (appended.length === 0) throw new Refusal(400, "append_token_ids must hold at least one token id.");
    const reference = body["prompt_cache_ref"];
    if (reference === null || reference === undefined) return appended;
    const prefix = this.#prefix(owner, reference);
    const ids = new Uint32Array(prefix.length + appended.length);
    ids.set(prefix);
    ids.set(appended, prefix.length);
    return ids;
  }

  /** Answers the routes that generate nothing; null for those it does not have. @throws Refusal */
  answer(route: string, headers: IncomingHttpHeaders, body: JsonObject, limits: Limits): JsonObject | null {
    const owner = this.owner(headers, body);
    switch (route) {
      case `GET ${HANDLES_PATH}`:
        return {
          promptseam: 1,
          version: "0.1.0",
          max_body_bytes: 16 * 1024 * 1024,
          max_tokens: limits.maxModelLength,
          models: [this.#modelName],
        };
      case `POST ${HANDLES_PATH}/register`: {
        const ids = checkedIds(body["token_ids"], "token_ids", limits);
        return { prompt_cache_ref: { ...this.put(owner, ids) } };
      }
      case `POST ${HANDLES_PATH}/lookup`: {
        const id = asString(asObject(body["prompt_cache_ref"])?.["id"]) ?? "";
        const { ids } = this.#find(owner, id);
        return { prompt_cache_ref: { id, token_count: ids.length, token_hash: hashOf(ids) } };
      }
      case `POST ${HANDLES_PATH}/drop`: {
        const id = asString(asObject(body["prompt_cache_ref"])?.["id"]) ?? "";
        this.#find(owner, id);
        this.#kept.delete(id);
        return { dropped: true };
      }
      default:
        return null;
    }
  }

  #prefix(owner: string, value: JsonValue): Uint32Array {
    const reference = asObject(value);
    const id = asString(reference?.["id"]);
    const count = asCount(reference?.["token_count"]);
    const hash = asString(reference?.["token_hash"]);
    if (id === null || count === null || count < 1 || hash === null || !/^[0-9a-f]{64}$/.test(hash))
      throw new Refusal(400, "prompt_cache_ref must be an object of id, token_count and token_hash.");
    const { ids } = this.#find(owner, id);
    if (count > ids.length || hashOf(ids.subarray(0, count)) !== hash) throw miss("prefix_mismatch");
    return ids.subarray(0, count);
  }

  #find(owner: string, id: string): Kept {
    const kept = this.#kept.get(id);
    if (kept === undefined || kept.owner !== owner || kept.expires <= Date.now()) throw miss();
    kept.expires = Date.now() + this.#ttlMs;
    return kept;
  }
}

/** The refusal of a request whose handle is gone, whatever it names. */
export function handleMiss(): Refusal {
  return miss();
}

function hashOf(ids: Uint32Array): string {
  return Prompt.fromIds(ids).hash();
}
