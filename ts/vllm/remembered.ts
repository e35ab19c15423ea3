/** Something that is asked for once and known until it is forgotten. */

/** Callers that ask while it is being found out share the one question. A failure is not remembered. */
export class Remembered<T> {
  #value: Promise<T> | null = null;

  /** What is known, else what `ask` finds out. */
  get(ask: () => Promise<T>): Promise<T> {
    if (this.#value !== null) return this.#value;
    const value = ask();
    this.#value = value;
    value.catch(() => {
      if (this.#value === value) this.#value = null;
    });
    return value;
  }

  /** Asks anew the next time. An answer that is still to come is not remembered either. */
  forget(): void {
    this.#value = null;
  }
}
