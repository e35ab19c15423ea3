/** Stops the use of handles on a server that keeps missing them, as one of several API server processes does. */

/** Requests that are looked back on. */
const WINDOW = 20;
/** More misses among them than this are too many. */
const MOST_MISSES = WINDOW / 2;
/** For how long handles are then left alone. */
const OPEN_MS = 60_000;

/** Opens when more than half of the last 20 requests that named a handle missed; closes by itself, and counts anew. */
export class MissBreaker {
  #last: boolean[] = [];
  #openUntil = 0;

  get isOpen(): boolean {
    return this.#openUntil > Date.now();
  }

  note(missed: boolean): void {
    this.#last.push(missed);
    if (this.#last.length > WINDOW) this.#last.shift();
    if (this.#last.filter(Boolean).length <= MOST_MISSES) return;
    this.#last = [];
    this.#openUntil = Date.now() + OPEN_MS;
  }
}
