// A store that remembers what it was last asked for, so that the fuzzer knows what a turn goes on from.

export class WatchedStore {
  #store;
  #later;
  /** What the last `find` gave. */
  found;
  /** What the last `load` gave. */
  checkpoint;
  holdsArtifacts;

  /**
   * @param store a store that answers at once, or the promise of one that does not
   * @param {boolean} later Whether every answer takes a while.
   */
  constructor(store, later) {
    this.#store = store;
    this.#later = later;
    this.holdsArtifacts = store.holdsArtifacts ?? false;
  }

  forget() {
    this.found = undefined;
    this.checkpoint = undefined;
  }

  load(...asked) {
    return this.#given("load", asked, (checkpoint) => {
      this.checkpoint = checkpoint;
    });
  }

  find(...asked) {
    return this.#given("find", asked, (found) => {
      this.found = found;
    });
  }

  commit(commit) {
    this.committed = commit.artifact.id;
    return this.#given("commit", [commit]);
  }

  delete(...asked) {
    return this.#given("delete", asked);
  }

  salt(...asked) {
    return this.#given("salt", asked);
  }

  #given(call, asked, look = () => {}) {
    if (this.#store instanceof Promise) {
      return this.#store
        .then((store) => store[call](...asked))
        .then((value) => {
          look(value);
          return value;
        });
    }
    const value = this.#store[call](...asked);
    look(value);
    return this.#later ? new Promise((resolve) => setImmediate(resolve, value)) : value;
  }
}
