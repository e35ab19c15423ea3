// What the sessions of one family share: the model, a store, and a Seam of each kind on it.

import { SETUPS } from "./setups.mjs";
import { WatchedStore } from "./watched-store.mjs";

/** Enough for every session that is under way; older ones are evicted. */
const PLENTY = 48 * 2 ** 20;

/** A busy machine makes no difference to what comes of a turn. */
const UNHURRIED = { storeTimeoutMs: Number.POSITIVE_INFINITY };

/** The stores that kits have. */
export const STORES = {
  plenty: { maxBytes: PLENTY, later: false },
  /** Answers a while later. */
  later: { maxBytes: PLENTY, later: true },
  /** Gives up what was there a moment ago. */
  small: { maxBytes: 60_000, later: false },
};

export class Kit {
  family;
  model;
  store;
  #api;
  #stored;
  #seams = new Map();

  /** @param api `Seam` and `MemoryStore`, of the sources or of what was built of them */
  constructor(api, family, model, stored = "plenty") {
    const { maxBytes, later } = STORES[stored];
    this.#api = api;
    this.family = family;
    this.model = model;
    this.#stored = stored;
    this.store = new WatchedStore(new api.MemoryStore({ maxBytes }), later);
  }

  /** Whether the store may have lost what it was given. */
  get forgets() {
    return this.#stored === "small";
  }

  /** A kit of its own for the same model, that knows of no conversation. */
  fresh() {
    return new Kit(this.#api, this.family, this.model, this.#stored);
  }

  seam(setup) {
    let known = this.#seams.get(setup);
    if (known === undefined) {
      const options = SETUPS[setup];
      known = {
        seam: new this.#api.Seam({ model: this.model, store: this.store, ...UNHURRIED, ...options }),
        options,
      };
      this.#seams.set(setup, known);
    }
    return known;
  }

  /** The next Seam of this kind is made anew, on the same store. */
  renew(setup) {
    this.#seams.delete(setup);
  }
}
