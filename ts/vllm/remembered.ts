/** Something that is asked for once and known until it is forgotten. */

/** Callers that ask while it is being found out share the one question. A failure is not remembered. */
export class Remembered<T> {
  #value: Promise<T> | null = null;
  #known: T | undefined;

  /** What is known, if anything is. */
  get known(): T | undefined {
    return this.#known;
  }

  /** What is known, else what `ask` finds out. */
  get(ask: () => Promise<T>): Promise<T> {
    if (this.#value !== null) return this.#value;
    const value = ask();
    this.#value = value;
    value.then(
      (known) => {
        if (this.#value === value) this.#known = known;
      },
      () => {
        if (this.#value === value) this.#value = null;
      },
    );
    return value;
  }

  /** Asks anew the next time. An answer that is still to come is not remembered either. */
  forget(): void {
    this.#value = null;
    this.#known = undefined;
  }
}
