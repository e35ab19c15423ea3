// A store that remembers what it was last asked for, so that the fuzzer knows what a turn goes on from.

export class WatchedStore {
  #store;
  #later;
  /** What the last `find` gave. */
  found;
  /** What the last `load` gave. */
  checkpoint;

  /** @param {boolean} later Whether every answer takes a while. */
  constructor(store, later) {
    this.#store = store;
    this.#later = later;
  }

  forget() {
    this.found = undefined;
    this.checkpoint = undefined;
  }

  load(tenant, conversation) {
    this.checkpoint = this.#store.load(tenant, conversation);
    return this.#given(this.checkpoint);
  }

  find(tenant, digests) {
    this.found = this.#store.find(tenant, digests);
    return this.#given(this.found);
  }

  commit(commit) {
    this.committed = commit.entry.artifact.id;
    return this.#given(this.#store.commit(commit));
  }

  delete(tenant, conversation) {
    return this.#given(this.#store.delete(tenant, conversation));
  }

  stats() {
    return this.#store.stats();
  }

  #given(value) {
    return this.#later ? new Promise((resolve) => setImmediate(resolve, value)) : value;
  }
}
