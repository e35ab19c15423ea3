/** What may stop a request from outside its exchange: the caller's signal, a deadline, the client's close. */

import { abortError, type PromptseamError } from "../errors.ts";
import { type DeadlinePhase, timeoutError } from "./failure.ts";

/** The longest delay that a timer of Node takes. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/**
 * Joins all reasons to stop into one signal, and remembers which came first. It is the signal itself, as far as undici uses
 * one: a real AbortSignal costs the event loop a tenth of what a whole request may.
 */
export class Guard {
  readonly #listeners = new Set<() => void>();
  readonly #callerSignal: AbortSignal | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failure: PromptseamError | null = null;

  constructor(callerSignal: AbortSignal | undefined) {
    this.#callerSignal = callerSignal;
    if (callerSignal?.aborted) this.#onCallerAbort();
    else callerSignal?.addEventListener("abort", this.#onCallerAbort, { once: true });
  }

  /** Whether it was stopped. */
  get aborted(): boolean {
    return this.#failure !== null;
  }

  /** What undici throws then. */
  get reason(): PromptseamError | null {
    return this.#failure;
  }

  /** Why it was stopped; null while it was not. What undici throws after a stop is only an echo of this. */
  get failure(): PromptseamError | null {
    return this.#failure;
  }

  /** Calls `listener` when the request is stopped. */
  addEventListener(_: "abort", listener: () => void): void {
    this.#listeners.add(listener);
  }

  removeEventListener(_: "abort", listener: () => void): void {
    this.#listeners.delete(listener);
  }

  /** Stops the request; later reasons are ignored. */
  stop(failure: PromptseamError): void {
    if (this.#failure !== null) return;
    this.#failure = failure;
    for (const listener of [...this.#listeners]) listener();
  }

  /** Throws the failure if there is one. */
  check(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** The result of `work`, which goes on, or the failure as soon as there is one. @throws the failure */
  async race<T>(work: Promise<T>): Promise<T> {
    this.check();
    let onAbort = (): void => {};
    const stopped = new Promise<never>((_, reject) => {
      onAbort = () => reject(this.#failure);
      this.addEventListener("abort", onAbort);
    });
    try {
      return await Promise.race([work, stopped]);
    } finally {
      this.removeEventListener("abort", onAbort);
    }
  }

  /** Sets the deadline, in place of any other. */
  setDeadline(phase: DeadlinePhase, ms: number): void {
    this.clearDeadline();
    if (ms > MAX_DELAY_MS) return;
    this.#timer = setTimeout(() => this.stop(timeoutError(phase, ms)), ms);
  }

  clearDeadline(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  get hasDeadline(): boolean {
    return this.#timer !== undefined;
  }

  /** Lets go of the timer and of the caller's signal. */
  dispose(): void {
    this.clearDeadline();
    this.#callerSignal?.removeEventListener("abort", this.#onCallerAbort);
  }

  readonly #onCallerAbort = (): void => {
    if (this.#callerSignal !== undefined) this.stop(abortError(this.#callerSignal));
  };
}
