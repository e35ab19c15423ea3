/** What a Seam asks of its store, within a deadline: trouble there never fails a turn. */

import { publish } from "../events.ts";
import type { Checkpoint, Commit, CommitStatus, Entry, MaybePromise, Store } from "../store/store.ts";

/** What came of a question. */
export type Asked<T> = { readonly ok: true; readonly value: T } | { readonly ok: false };

const FAILED: Asked<never> = { ok: false };

/** A store that answers in time, or not at all. */
export class Records {
  readonly #store: Store;
  readonly #timeoutMs: number;

  constructor(store: Store, timeoutMs: number) {
    this.#store = store;
    this.#timeoutMs = timeoutMs;
  }

  load(tenant: string, conversation: string): MaybePromise<Asked<Checkpoint | undefined>> {
    return this.#ask("load", () => this.#store.load(tenant, conversation));
  }

  find(tenant: string, digests: readonly string[]): MaybePromise<Asked<Entry | undefined>> {
    return this.#ask("find", () => this.#store.find(tenant, digests));
  }

  commit(commit: Commit): MaybePromise<Asked<CommitStatus>> {
    return this.#ask("commit", () => this.#store.commit(commit));
  }

  /** A store that answers at once costs no promise. */
  #ask<T>(operation: "load" | "find" | "commit", work: () => MaybePromise<T>): MaybePromise<Asked<T>> {
    const started = performance.now();
    const failed = (cause: unknown): Asked<T> => {
      publish("storeTrouble", () => ({
        operation,
        elapsedMs: performance.now() - started,
        timedOut: cause === TIMED_OUT,
      }));
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
