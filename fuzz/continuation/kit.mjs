// What the sessions of one family share: the model, a store, and a Seam of each kind on it.

import { SETUPS } from "./setups.mjs";
import { WatchedStore } from "./watched-store.mjs";

/** Enough for every session that is under way; older ones are evicted. */
const STORE_BYTES = 48 * 2 ** 20;

export class Kit {
  family;
  model;
  store;
  #api;
  #seams = new Map();

  /**
   * @param api `Seam` and `MemoryStore`, of the sources or of what was built of them
   * @param {boolean} later Whether the store answers a while later.
   */
  constructor(api, family, model, later = false) {
    this.#api = api;
    this.family = family;
    this.model = model;
    this.store = new WatchedStore(new api.MemoryStore({ maxBytes: STORE_BYTES }), later);
  }

  /** A kit of its own for the same model, that knows of no conversation. */
  fresh() {
    return new Kit(this.#api, this.family, this.model);
  }

  seam(setup) {
    let known = this.#seams.get(setup);
    if (known === undefined) {
      const options = SETUPS[setup];
      known = { seam: new this.#api.Seam({ model: this.model, store: this.store, ...options }), options };
      this.#seams.set(setup, known);
    }
    return known;
  }

  /** The next Seam of this kind is made anew, on the same store. */
  renew(setup) {
    this.#seams.delete(setup);
  }
}
