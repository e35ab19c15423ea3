/** The artifacts that a Seam used last, for stores that give records: restoring these takes milliseconds. */

import type { Artifact } from "../store/store.ts";

interface Held {
  readonly artifact: Artifact;
  /** Tenant and id. */
  readonly key: string;
  readonly bytes: number;
  /** Where it is looked up. */
  readonly names: Set<string>;
}

/** Bytes of an entry's own. */
const OVERHEAD = 1_500;

/**
 * Artifacts by conversation and by history, bounded in bytes; the least recently used leave first. One that was gone on from
 * makes way for what went on from it: most of it is shared, and the next turn goes on from the newest.
 */
export class ArtifactCache {
  readonly #maxBytes: number;
  /** From the least to the most recently used. */
  readonly #held = new Map<string, Held>();
  readonly #named = new Map<string, Held>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The last one of a conversation. */
  tip(tenant: string, conversation: string): Artifact | undefined {
    return this.#use(nameOf("c", tenant, conversation));
  }

  /** One of the first of these histories that has any. */
  first(tenant: string, digests: readonly string[]): Artifact | undefined {
    for (const digest of digests) {
      const artifact = this.#use(nameOf("h", tenant, digest));
      if (artifact !== undefined) return artifact;
    }
    return undefined;
  }

  put(tenant: string, conversation: string | undefined, artifact: Artifact): void {
    if (artifact.parent !== undefined) this.#drop(this.#held.get(nameOf("a", tenant, artifact.parent)));
    const key = nameOf("a", tenant, artifact.id);
    this.#drop(this.#held.get(key));
    const names = new Set([nameOf("h", tenant, artifact.digest)]);
    if (conversation !== undefined) names.add(nameOf("c", tenant, conversation));
    const held = { artifact, key, bytes: artifact.allBytes + OVERHEAD, names };
    this.#held.set(key, held);
    this.#bytes += held.bytes;
    for (const name of names) {
      this.#named.get(name)?.names.delete(name);
      this.#named.set(name, held);
    }
    for (const oldest of this.#held.values()) {
      if (this.#bytes <= this.#maxBytes) break;
      this.#drop(oldest);
    }
  }

  #use(name: string): Artifact | undefined {
    const held = this.#named.get(name);
    if (held === undefined) return undefined;
    this.#held.delete(held.key);
    this.#held.set(held.key, held);
    return held.artifact;
  }

  #drop(held: Held | undefined): void {
    if (held === undefined) return;
    this.#held.delete(held.key);
    this.#bytes -= held.bytes;
    for (const name of held.names) this.#named.delete(name);
  }
}

/** No two of these are the same text, whatever the tenant is called. */
function nameOf(kind: "a" | "c" | "h", tenant: string, name: string): string {
  return `${kind}${tenant.length}:${tenant}${name}`;
}
