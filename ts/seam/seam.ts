/** The Seam: plans the turns of conversations, and keeps what the next ones go on from. */

import { abortError, PromptseamError } from "../errors.ts";
import { clock, Model } from "../model.ts";
import { asBuffer, cancellable, type NativePlan, type NativeSeam, native, take } from "../native.ts";
import { checkIds } from "../store/limits.ts";
import { Artifact, type MaybePromise } from "../store/store.ts";
import type { ChatMessage, ChatRequest } from "../vllm/requests.ts";
import { Handles } from "./handles.ts";
import {
  type PrepareOptions,
  type ResolvedSeamOptions,
  resolveSeamOptions,
  type SeamOptions,
} from "./options.ts";
import type { Reason } from "./outcome.ts";
import { Read } from "./read.ts";
import { type Asked, type Base, Records, type Standing } from "./records.ts";
import { type SeamStats, Tally } from "./stats.ts";
import { Turn, type TurnHost } from "./turn.ts";

/** Messages behind a conversation's last answer, and the members of the request that differ from the turn before. */
export interface AppendRequest {
  /** At least one message. */
  readonly append: readonly ChatMessage[];
  readonly messages?: undefined;
  readonly [member: string]: ChatRequest[string] | readonly ChatMessage[];
}

/** How long after a server ignored ids it is not sent any. */
const IDS_IGNORED_MS = 300_000;

/** What was found to go on from. */
interface Found {
  readonly base: Base | undefined;
  /** Messages of the request that its history has. */
  readonly count: number;
  readonly standing: Standing | undefined;
  /** Why there is no base. */
  readonly missing: Reason | undefined;
}

/**
 * Plans turns so that the prompt of each is sent as the ids the model saw and the few new ones, and proves that they are what a
 * full render would give; where it cannot, it renders, and says why.
 *
 * ```ts
 * const seam = new Seam({ model, client });
 * const turn = await seam.prepare({ messages }, { conversation: "s-42" });
 * for await (const chunk of turn.stream()) if (chunk.type === "text") process.stdout.write(chunk.text);
 * await turn.committed;
 * const next = await seam.prepare({ append: [{ role: "user", content: "Go on." }] }, { conversation: "s-42" });
 * ```
 *
 * Safe to share: turns of many conversations, and several of one, may be under way at once.
 */
export class Seam {
  readonly #options: ResolvedSeamOptions;
  readonly #native: NativeSeam;
  readonly #records: Records;
  readonly #tally = new Tally();
  readonly #host: TurnHost;
  #idsIgnoredUntil = 0;

  /** @throws PromptseamError `PS_INVALID_ARGUMENT`, `PS_CLOSED` for a closed model */
  constructor(options: SeamOptions) {
    this.#options = resolveSeamOptions(options);
    this.#native = take(native.NativeSeam.on(Model.handle(options.model), this.#options));
    const { store, storeTimeoutMs, cacheBytes } = this.#options;
    this.#records = new Records(store, storeTimeoutMs, cacheBytes, async (records, known, tenant, id) => {
      const base = known === undefined ? null : Artifact.handle(known);
      return new Artifact(take(await this.#native.restore(asBuffer(records), base, tenant, id)));
    });
    this.#host = {
      options: this.#options,
      records: this.#records,
      handles: new Handles(this.#options.client, this.#options.transport),
      tally: this.#tally,
      idsIgnored: () => {
        this.#idsIgnoredUntil = Date.now() + IDS_IGNORED_MS;
      },
    };
  }

  /**
   * Tries the model's template on the classes of turns that are usual, some 30 ms on the model's threads. Without it that
   * happens class by class, 2 ms each, when a turn first needs it.
   */
  async warmUp(options: { now?: Date } = {}): Promise<void> {
    const { unixMillis, utcOffsetMinutes } = clock(options.now);
    take(await this.#native.warmUp(unixMillis, utcOffsetMinutes));
  }

  /**
   * Plans a turn: `{ append }` goes on from a known conversation's open tool round, else its head; a request with `messages`
   * is always the full history, as an object or as the raw bytes of its JSON body, which is the faster way.
   *
   * @throws PromptseamError what `model.render` throws; `PS_INVALID_ARGUMENT` for ids of over 1,000 characters; `PS_CONVERSATION_UNKNOWN` for an append to a conversation whose history
   * is not, or no longer, known; `PS_STORE` where the store cannot be asked for it
   */
  async prepare(
    request: AppendRequest | ChatRequest | Uint8Array,
    options: PrepareOptions = {},
  ): Promise<Turn> {
    const started = performance.now();
    if (options.signal?.aborted) throw abortError(options.signal);
    const tenant = options.tenant ?? "";
    checkIds(tenant, options.conversation, options.project);
    let read = Read.of(request, this.#native, options.signal);
    if (read instanceof Promise) read = await read;
    let found =
      read.append !== null ? this.#findTip(tenant, options) : this.#findHistory(read, tenant, options);
    if (found instanceof Promise) found = await found;
    let salt = this.#salt(tenant);
    if (typeof salt !== "string") salt = await salt;
    const plan = await this.#planned(read, found, tenant, salt, options);
    const turn = new Turn(this.#host, {
      plan,
      read,
      tenant,
      salt,
      conversation: options.conversation,
      project: options.project,
      version: found.standing?.version ?? 0,
      lora: options.lora ?? "",
      from: [found.base, found.standing?.tip].flatMap((base) => base?.artifact.id ?? []),
      expires: found.base?.expires ?? Number.POSITIVE_INFINITY,
      startedMs: started,
    });
    // Whoever sends it himself gets no prompt that is still to be compared.
    if (this.#options.client === undefined) await turn.settle(options.signal);
    return turn;
  }

  /** What the turns of this Seam came to. */
  stats(): SeamStats {
    return { ...this.#tally.stats(), refusedRecords: this.#records.refused };
  }

  /** Who only watches changes no request, and who renders at the server has nothing of his own there. */
  #salt(tenant: string): MaybePromise<string> {
    const { mode, cacheDomain } = this.#options;
    if (mode !== "on" || tenant === "" || cacheDomain === undefined) return "";
    return this.#records.salt(tenant, cacheDomain);
  }

  #findTip(tenant: string, { conversation }: PrepareOptions): Found | Promise<Found> {
    if (conversation === undefined)
      throw new PromptseamError("PS_INVALID_ARGUMENT", "An append needs the conversation that it is for.");
    const asked = this.#records.load(tenant, conversation);
    return asked instanceof Promise ? asked.then(tipOf) : tipOf(asked);
  }

  #findHistory(read: Read, tenant: string, { conversation }: PrepareOptions): Found | Promise<Found> {
    const { counts, digests } = read.candidates();
    const found = this.#records.find(tenant, digests);
    const loaded =
      conversation === undefined
        ? ({ ok: true, value: undefined } as const)
        : this.#records.load(tenant, conversation);
    const join = (match: Asked<Base | undefined>, known: Asked<Standing | undefined>): Found => {
      const standing = known.ok ? known.value : undefined;
      const base = match.ok ? match.value : undefined;
      if (base !== undefined) {
        const count = counts[digests.indexOf(base.artifact.digest)];
        if (base.expires <= Date.now())
          return { base: undefined, count: 0, standing, missing: "artifact_expired" };
        if (count !== undefined) return { base, count, standing, missing: undefined };
      }
      const missing = match.ok && known.ok ? whyMissing(standing) : "store_unavailable";
      return { base: undefined, count: 0, standing, missing };
    };
    if (found instanceof Promise || loaded instanceof Promise)
      return Promise.all([found, loaded]).then(([match, known]) => join(match, known));
    return join(found, loaded);
  }

  /** Who only watches leaves it to the server to refuse a request. */
  async #planned(
    read: Read,
    found: Found,
    tenant: string,
    salt: string,
    options: PrepareOptions,
  ): Promise<NativePlan> {
    const declined = this.#declined();
    if (this.#options.mode !== "observe") return this.#plan(read, found, tenant, salt, options, declined);
    try {
      return await this.#plan(read, found, tenant, salt, options, declined);
    } catch (error) {
      if (options.signal?.aborted) throw error;
      return this.#plan(read, found, tenant, salt, options, "uncertified_template");
    }
  }

  async #plan(
    read: Read,
    found: Found,
    tenant: string,
    salt: string,
    options: PrepareOptions,
    declined: Reason | undefined,
  ): Promise<NativePlan> {
    const { base: from, count, standing, missing } = found;
    const { unixMillis, utcOffsetMinutes } = clock(options.now);
    const how = {
      unixMillis,
      utcOffsetMinutes,
      expires: Math.min(from?.expires ?? Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
      tenant,
      lora: options.lora ?? "",
      salt,
      missing: missing ?? "",
      declined: declined ?? "",
    };
    const base = from === undefined ? null : Artifact.handle(from.artifact);
    if (base !== null) {
      const plan = take(
        await (read.append === null
          ? this.#native.planAside(read.native, base, count, how)
          : this.#native.appendAside(read.append.messages, read.append.members, base, how)),
      );
      if (options.signal?.aborted) throw abortError(options.signal);
      if (plan !== null) return plan;
    }
    const tip = standing?.tip;
    const usable = base === null && tip !== undefined && tip.expires > Date.now();
    const previous = usable ? Artifact.handle(tip.artifact) : null;
    return cancellable(options.signal, (cancel) =>
      this.#native.plan(read.native, read.append !== null, base, count, previous, how, cancel),
    );
  }

  /** Why the server is to render whatever could be planned. */
  #declined(): Reason | undefined {
    if (this.#options.mode === "off") return "disabled";
    if (this.#idsIgnoredUntil > Date.now()) return "ids_ignored";
    return undefined;
  }
}

function whyMissing(standing: Standing | undefined): Reason {
  if (standing === undefined) return "no_checkpoint";
  if (standing.tip === undefined) return "artifact_miss";
  return standing.tip.expires > Date.now() ? "prefix_mismatch" : "artifact_expired";
}

/** The open tool round of a conversation, else its head. */
function tipOf(asked: Asked<Standing | undefined>): Found {
  if (!asked.ok) {
    throw new PromptseamError(
      "PS_STORE",
      "The store could not be asked for the conversation's history. Send the full history as messages.",
    );
  }
  const standing = asked.value;
  const base = standing?.tip;
  if (base === undefined || base.expires <= Date.now()) {
    throw new PromptseamError(
      "PS_CONVERSATION_UNKNOWN",
      "The conversation is not known, or its history is no longer kept. Send the full history as messages.",
    );
  }
  return { base, count: 0, standing, missing: undefined };
}
