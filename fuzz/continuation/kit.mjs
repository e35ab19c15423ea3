// What the sessions of one family share: the model, a store, and a Seam of each kind on it.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SETUPS } from "./setups.mjs";
import { WatchedStore } from "./watched-store.mjs";

/** Enough for every session that is under way; older ones are evicted. */
const PLENTY = 48 * 2 ** 20;

/** A busy machine makes no difference to what comes of a turn. */
const UNHURRIED = { storeTimeoutMs: Number.POSITIVE_INFINITY, cacheBytes: 0 };

/** The stores that kits have. */
export const STORES = {
  plenty: { maxBytes: PLENTY, later: false },
  /** Answers a while later. */
  later: { maxBytes: PLENTY, later: true },
  /** Gives up what was there a moment ago. */
  small: { maxBytes: 60_000, later: false },
  /** Gives records, all of which are read anew. */
  sqlite: { maxBytes: PLENTY, file: true },
};

/** A file that goes with the process. */
function sqlite(api, maxBytes) {
  const folder = mkdtempSync(join(tmpdir(), "promptseam-fuzz-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  return api.SqliteStore.open(join(folder, "conversations.db"), { maxBytes });
}

export class Kit {
  family;
  model;
  store;
  #api;
  #stored;
  #seams = new Map();

  /** @param api `Seam`, `MemoryStore` and `SqliteStore`, of the sources or of what was built of them */
  constructor(api, family, model, stored = "plenty") {
    const { maxBytes, later, file } = STORES[stored];
    this.#api = api;
    this.family = family;
    this.model = model;
    this.#stored = stored;
    const store = file ? sqlite(api, maxBytes) : new api.MemoryStore({ maxBytes });
    this.store = new WatchedStore(store, later);
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
