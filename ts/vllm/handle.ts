/** Prompt handles: prompts that a server keeps, so that a request names one and carries only what is new (protocol 1 of `python/`). */

import { createHash } from "node:crypto";
import { PromptseamError } from "../errors.ts";
import { asArray, asCount, asObject, asString, type JsonObject, type JsonValue } from "./json.ts";
import type { WirePrompt } from "./wire.ts";

/** Where the plugin's routes are; a GET of it is the handshake. */
export const HANDLES_PATH = "/inference/v1/prompt-handles";
export const HANDLE_CHAT_PATH = `${HANDLES_PATH}/chat`;
export const TENANT_HEADER = "x-promptseam-tenant";

/** The version of the protocol that is spoken here; a server of another one has no handles for us. */
const PROTOCOL = 1;
const HASH = /^[0-9a-f]{64}$/;

/** What a server says that it keeps: `tokenHash` is the lowercase hex BLAKE3 of the ids as little-endian 32-bit words. */
export interface HandleReference {
  readonly id: string;
  readonly tokenCount: number;
  readonly tokenHash: string;
}

/** A prompt that a server keeps, to be named in the next request. */
export interface PromptHandle extends HandleReference {
  /** The ids that are kept: the prompt that was sent and what was sampled, as far as these are known here. */
  readonly prompt: WirePrompt;
}

/** How a chat is sent by handle. */
export interface HandleOptions {
  /**
   * Whose handles they are: no one else can name them. The server is told a digest of this, never the name. Default: nobody's in
   * particular.
   */
  readonly tenant?: string;
  /**
   * What the server keeps: `facts.handle` of an earlier answer. The ids that the prompt has in common with it stay away from the
   * request; the server checks them by count and hash before anything runs. Default: all ids are sent, and then kept.
   */
  readonly from?: PromptHandle | undefined;
}

/** What a server with the plugin says of it. */
export interface HandleServer {
  readonly version: string | null;
  /** The longest request body that it takes. */
  readonly maxBodyBytes: number | null;
  /** Names of the models, and adapters, that it has handles for. */
  readonly models: readonly string[];
}

/** The handshake's answer; null for what is not one, or is of another protocol. */
export function readHandshake(answer: JsonObject): HandleServer | null {
  if (answer["promptseam"] !== PROTOCOL) return null;
  return {
    version: asString(answer["version"]),
    maxBodyBytes: asCount(answer["max_body_bytes"]),
    models: asArray(answer["models"]).filter((name) => typeof name === "string"),
  };
}

/** The member `prompt_cache_ref` of an answer; null where nothing is kept. */
export function readReference(value: JsonValue | undefined): HandleReference | null {
  const members = asObject(value);
  const id = asString(members?.["id"]);
  const tokenCount = asCount(members?.["token_count"]);
  const tokenHash = asString(members?.["token_hash"]);
  if (id === null || tokenCount === null || tokenHash === null || !HASH.test(tokenHash)) return null;
  return { id, tokenCount, tokenHash };
}

/**
 * The ids that a reference stands for, given the prompt that was sent and what was sampled; null where the server speaks of fewer
 * ids than were sent. Where the sampled ids are not known, the prompt alone: it begins what is kept. O(sampled).
 *
 * The hash is not checked: the server does that with the prefix which the next request claims.
 */
export function heldBy(
  reference: HandleReference,
  prompt: WirePrompt,
  sampled: Uint32Array | null,
): PromptHandle | null {
  const { id, tokenCount, tokenHash } = reference;
  if (tokenCount < prompt.length) return null;
  const whole = sampled !== null && tokenCount === prompt.length + sampled.length;
  return { id, tokenCount, tokenHash, prompt: whole ? prompt.continued(sampled) : prompt };
}

/**
 * A request body: `head` (an object's JSON, open for more members), the reference and the ids that it does not cover, at least
 * one. O(common prefix) to compare and hash, O(appended) to write.
 */
export async function writeByHandle(
  head: string,
  prompt: WirePrompt,
  from: PromptHandle | undefined,
): Promise<Uint8Array> {
  const common = from === undefined ? 0 : from.prompt.diff(prompt).commonPrefix;
  const count = Math.max(0, Math.min(common, prompt.length - 1));
  if (from === undefined || count === 0)
    return prompt.toBody(`${head}"prompt_cache_ref":null,"append_token_ids":`, "}");
  const reference = JSON.stringify({ id: from.id, token_count: count, token_hash: prompt.hash(count) });
  return prompt.writeJson(`${head}"prompt_cache_ref":${reference},"append_token_ids":`, "}", count);
}

/** The tenant's key: a digest, so that a name is neither shown to the server nor able to be anything but a header's value. */
export function tenantHeaders(tenant: string | undefined): Readonly<Record<string, string>> {
  if (tenant === undefined || tenant === "") return {};
  return { [TENANT_HEADER]: createHash("sha256").update(`promptseam tenant\0${tenant}`).digest("hex") };
}

/** Whether the server no longer has what a request named, or says so: nothing was run. */
export function isHandleMiss(error: unknown): boolean {
  return (
    PromptseamError.isInstance(error) &&
    error.details.status === 404 &&
    error.details.type === "PromptHandleMiss"
  );
}

/** What a route answers that is not there, or that a proxy does not let through. */
const MISSING: ReadonlySet<number> = new Set([403, 404, 405]);
/** What it answers to a request that it does not take. Not a missing key, and not a failure. */
const REFUSED: ReadonlySet<number> = new Set([...MISSING, 400, 413, 422, 501]);

/** Whether the handle route did not take a request, so that it may be sent another way. A prompt over the context is over it there too. */
export function isRouteRefusal(error: unknown): error is PromptseamError {
  return (
    PromptseamError.isInstance(error) &&
    error.code === "PS_HTTP_STATUS" &&
    REFUSED.has(error.details.status ?? 0)
  );
}

/** Whether such a refusal may mean that there is no such route. */
export function mayBeMissing({ details }: PromptseamError): boolean {
  return MISSING.has(details.status ?? 0);
}
