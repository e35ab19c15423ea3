/** What a server can do, found out by asking it to. */

import { randomUUID } from "node:crypto";
import { PromptseamError } from "../errors.ts";
import { Prompt } from "../prompt.ts";
import type { VllmClient } from "./client.ts";
import type { AnswerFacts } from "./facts.ts";
import type { CallOptions } from "./options.ts";

/** A way to hand the server a prompt. */
export type TransportName = "messages" | "chat_ids" | "completion_ids" | "generate_ids" | "handle";

/** Whether the server showed that it takes prompts this way; if not, why. */
export type Proof = { readonly proved: true } | { readonly proved: false; readonly because: string };

/** What one server showed. */
export interface Capabilities {
  /** Its vLLM version; null where /version is not served. Nothing is concluded from it. */
  readonly version: string | null;
  /** The served model that was asked. */
  readonly model: string;
  /** Longest prompt and answer together, in tokens. */
  readonly maxModelLength: number | null;
  readonly transports: Readonly<Record<TransportName, Proof>>;
  /** Whether usage says how many prompt tokens came from the prefix cache (--enable-prompt-tokens-details). */
  readonly cachedTokens: boolean;
  /** Whether the engine keeps a prefix cache; null where neither usage nor metrics say. */
  readonly prefixCaching: boolean | null;
  /** Whether the server gives the ids it sampled on the chat ways (`return_token_ids`). */
  readonly sampledIds: boolean;
}

/** Ids that every vocabulary has; the engine does not care what they mean. */
const PROBE_ID = 97;
const PROBE_IDS = 26;
/** More than two blocks of any usual size, so that the same prompt again must hit the prefix cache. */
const PROBE_LENGTH = 1_100;

const MESSAGES = [{ role: "user", content: "Say yes." }];

/**
 * Asks a server what it can do: six requests of one token each, under a cache salt of their own.
 *
 * @throws PromptseamError for a server that cannot be reached or fails; a refusal is an answer
 */
export async function probeServer(
  client: VllmClient,
  model: string | undefined,
  options: CallOptions,
): Promise<Capabilities> {
  const models = await client.models(options);
  const served = model === undefined ? models[0] : models.find(({ id }) => id === model);
  if (served === undefined) {
    throw new PromptseamError("PS_INVALID_ARGUMENT", "The server serves no such model; see client.models().");
  }
  const { id, maxModelLength } = served;
  const length = Math.min(PROBE_LENGTH, Math.max(1, Math.floor((maxModelLength ?? PROBE_LENGTH) / 2)));
  const prompt = Prompt.fromIds(Uint32Array.from({ length }, (_, at) => PROBE_ID + (at % PROBE_IDS)));
  const request = { model: id, messages: MESSAGES, max_tokens: 1, cache_salt: randomUUID() };
  const salt = request.cache_salt;
  const sampled = { ...options, sampledIds: "token_ids" } as const;
  const usesIds = ({ promptTokens }: AnswerFacts) => promptTokens === length;

  const messages = await attempt(() => client.chat(request, options).collect());
  const chat = await attempt(() => client.chat(request, { ...sampled, prompt }).collect());
  const completion = await attempt(() =>
    client.complete(prompt, { model: id, max_tokens: 1, cache_salt: salt }, options).collect(),
  );
  const generate = await attempt(() =>
    client.generate(prompt, { max_tokens: 1 }, { ...options, model: id, cacheSalt: salt }).collect(),
  );
  // A server without the plugin says so when asked, which is cheaper.
  const handle =
    (await client.promptHandles(options)) === null
      ? NO_PLUGIN
      : await attempt(() => client.chat(request, { ...options, prompt, handle: {} }).collect());
  // Where generate is not served, the prompt has been sent twice already.
  const idWays = [chat, completion, generate].flatMap((outcome) => outcome.facts ?? []).filter(usesIds);
  const cached = idWays.map(({ cachedTokens }) => cachedTokens).filter((count) => count !== null);
  prompt.close();

  return {
    version: (await attemptValue(() => client.version(options))) ?? null,
    model: id,
    maxModelLength,
    transports: {
      messages: proof(messages, () => true, ""),
      chat_ids: proof(
        chat,
        (facts) => !facts.idsIgnored && usesIds(facts),
        "The server does not know kv_transfer_params.prompt_token_ids: it rendered the messages.",
      ),
      completion_ids: proof(completion, usesIds, "The server counted another number of tokens."),
      generate_ids: proof(generate, usesIds, "The server counted another number of tokens."),
      handle: proof(
        handle,
        (facts) => facts.way === "handle" && facts.handle !== null && usesIds(facts),
        "The server's prompt handles did not take the prompt, or kept nothing of it.",
      ),
    },
    cachedTokens: cached.length > 0,
    prefixCaching: cached.some((count) => count > 0) ? true : await cachingByMetrics(client, options),
    sampledIds: (chat.facts?.sampledIds()?.length ?? 0) > 0,
  };
}

interface Outcome {
  readonly facts: AnswerFacts | null;
  readonly refusal: string;
}

const NO_PLUGIN: Outcome = {
  facts: null,
  refusal:
    "The server has no prompt handles: it runs without the promptseam-vllm plugin, or a proxy hides its routes.",
};

/** The facts of an answer, or why the server refused; other failures say nothing about what it can do. */
async function attempt(work: () => Promise<{ readonly facts: AnswerFacts }>): Promise<Outcome> {
  try {
    return { facts: (await work()).facts, refusal: "" };
  } catch (error) {
    if (!isRefusal(error)) throw error;
    return { facts: null, refusal: error.message };
  }
}

async function attemptValue<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (!isRefusal(error)) throw error;
    return undefined;
  }
}

function isRefusal(error: unknown): error is PromptseamError {
  if (!PromptseamError.isInstance(error)) return false;
  const { status } = error.details;
  return status !== undefined && status >= 400 && status < 500 && status !== 401 && status !== 403;
}

function proof(outcome: Outcome, holds: (facts: AnswerFacts) => boolean, because: string): Proof {
  if (outcome.facts === null) return { proved: false, because: outcome.refusal };
  return holds(outcome.facts) ? { proved: true } : { proved: false, because };
}

/** What `vllm:cache_config_info` says, for servers whose usage does not count cached tokens. */
async function cachingByMetrics(client: VllmClient, options: CallOptions): Promise<boolean | null> {
  const metrics = await attemptValue(() => client.metrics(options));
  const said = metrics?.samples("vllm:cache_config_info")[0]?.labels["enable_prefix_caching"];
  return said === undefined ? null : said === "True";
}
