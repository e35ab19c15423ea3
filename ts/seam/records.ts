/** What a Seam asks of its store, within a deadline: trouble there never fails a turn. */

import { randomBytes } from "node:crypto";
import { PromptseamError } from "../errors.ts";
import { publish } from "../events.ts";
import {
  Artifact,
  type Commit,
  type CommitStatus,
  type Entry,
  type MaybePromise,
  type Store,
} from "../store/store.ts";
import { ArtifactCache } from "./cache.ts";

/** What came of a question. */
export type Asked<T> = { readonly ok: true; readonly value: T } | { readonly ok: false };

/** A conversation state to go on from. */
export interface Base {
  readonly artifact: Artifact;
  /** Milliseconds of Unix time. */
  readonly expires: number;
}

/** Where a conversation stands. */
export interface Standing {
  readonly version: number;
  /** Its open tool round, else its head; undefined where that is no longer there, or cannot be used. */
  readonly tip: Base | undefined;
}

/** Makes an artifact of its records; see `NativeSeam.restore`. */
export type Restore = (
  records: Uint8Array,
  known: Artifact | undefined,
  tenant: string,
  id: string,
) => Promise<Artifact>;

type Operation = "load" | "find" | "commit" | "salt";

const FAILED: Asked<never> = { ok: false };
/** More histories than that are not looked for. */
const MOST_DIGESTS = 1_000;
/** Salts that are remembered; tenants beyond are asked for again. */
const MOST_SALTS = 10_000;

/** A store that answers in time, or not at all. */
export class Records {
  readonly #store: Store;
  readonly #timeoutMs: number;
  readonly #restore: Restore;
  readonly #cache: ArtifactCache | undefined;
  readonly #salts = new Map<string, string>();
  #refused = 0;

  constructor(store: Store, timeoutMs: number, cacheBytes: number, restore: Restore) {
    this.#store = store;
    this.#timeoutMs = timeoutMs;
    this.#restore = restore;
    this.#cache = store.holdsArtifacts ? undefined : new ArtifactCache(cacheBytes);
  }

  /** Records that could not be used. */
  get refused(): number {
    return this.#refused;
  }

  load(tenant: string, conversation: string): MaybePromise<Asked<Standing | undefined>> {
    const known = this.#cache?.tip(tenant, conversation);
    const standing = (asked: Asked<{ version: number; tip: Entry | undefined } | undefined>) => {
      if (!asked.ok || asked.value === undefined) return asked as Asked<undefined>;
      const { version, tip } = asked.value;
      const base = this.#base("load", tip, known, tenant, conversation);
      const stand = (tip: Base | undefined): Asked<Standing> => ({ ok: true, value: { version, tip } });
      return isPromise(base) ? base.then(stand) : stand(base);
    };
    const asked = this.#ask("load", () => this.#store.load(tenant, conversation, known?.id));
    return isPromise(asked) ? asked.then(standing) : standing(asked);
  }

  find(tenant: string, digests: readonly string[]): MaybePromise<Asked<Base | undefined>> {
    const asked = digests.length > MOST_DIGESTS ? digests.slice(0, MOST_DIGESTS) : digests;
    const known = this.#cache?.first(tenant, asked);
    const base = (found: Asked<Entry | undefined>): MaybePromise<Asked<Base | undefined>> => {
      if (!found.ok) return found;
      const base = this.#base("find", found.value, known, tenant, undefined);
      const given = (value: Base | undefined) => ({ ok: true, value }) as const;
      return isPromise(base) ? base.then(given) : given(base);
    };
    const found = this.#ask("find", () => this.#store.find(tenant, asked, known?.id));
    return isPromise(found) ? found.then(base) : base(found);
  }

  async commit(commit: Commit): Promise<Asked<CommitStatus>> {
    const asked = await this.#ask("commit", () => this.#store.commit(commit));
    if (asked.ok) this.#cache?.put(commit.tenant, commit.conversation, commit.artifact);
    return asked;
  }

  /** The salt of a tenant. One at random where the store has none to give: what is cached under it is lost, not shared. */
  salt(tenant: string, domain: string): MaybePromise<string> {
    const name = `${tenant.length}:${tenant}${domain}`;
    const known = this.#salts.get(name);
    if (known !== undefined) return known;
    const remember = (asked: Asked<string>): string => {
      if (!asked.ok) return randomBytes(32).toString("base64url");
      this.#salts.delete(this.#salts.size < MOST_SALTS ? name : (this.#salts.keys().next().value as string));
      this.#salts.set(name, asked.value);
      return asked.value;
    };
    const asked = this.#ask("salt", () => this.#store.salt(tenant, domain));
    return isPromise(asked) ? asked.then(remember) : remember(asked);
  }

  /** The artifact of an entry; undefined for one whose records cannot be used. */
  #base(
    operation: Operation,
    entry: Entry | undefined,
    known: Artifact | undefined,
    tenant: string,
    conversation: string | undefined,
  ): MaybePromise<Base | undefined> {
    if (entry === undefined) return undefined;
    const { id, expires, content } = entry;
    if (content instanceof Artifact) return { artifact: content, expires };
    if (known?.id === id) return { artifact: known, expires };
    const started = performance.now();
    return this.#restore(content, known, tenant, id).then(
      (artifact) => {
        this.#cache?.put(tenant, conversation, artifact);
        return { artifact, expires };
      },
      (cause: unknown) => {
        this.#refused++;
        trouble(operation, started, cause);
        return undefined;
      },
    );
  }

  /** A store that answers at once costs no promise. */
  #ask<T>(operation: Operation, work: () => MaybePromise<T>): MaybePromise<Asked<T>> {
    const started = performance.now();
    const failed = (cause: unknown): Asked<T> => {
      trouble(operation, started, cause);
      return FAILED;
    };
    try {
      const answer = work();
      // Whose database says null for nothing means the same.
      const given = (value: T): Asked<T> => ({ ok: true, value: (value ?? undefined) as T });
      if (!isPromise(answer)) return given(answer);
      return within(answer, this.#timeoutMs).then(given, failed);
    } catch (cause) {
      return failed(cause);
    }
  }
}

function trouble(operation: Operation, started: number, cause: unknown): void {
  publish("storeTrouble", () => ({
    operation,
    elapsedMs: performance.now() - started,
    timedOut: cause === TIMED_OUT,
    code: PromptseamError.isInstance(cause) ? cause.code : null,
  }));
}

const TIMED_OUT = Symbol("timed out");

/** `work`, or a rejection with {@link TIMED_OUT}; the work goes on unheard. */
async function within<T>(work: Promise<T>, timeoutMs: number): Promise<T> {
  if (timeoutMs === Number.POSITIVE_INFINITY) return work;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(TIMED_OUT), timeoutMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function isPromise<T>(value: MaybePromise<T>): value is Promise<T> {
  return typeof (value as Promise<T> | undefined)?.then === "function";
}
