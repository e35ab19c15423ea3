/** Artifacts for the tests of stores: a Seam makes them, on a model of a few hundred tokens. */

import { Model } from "../model.ts";
import { asBuffer, type NativeSeam, native, take } from "../native.ts";
import { resolveSeamOptions } from "../seam/options.ts";
import { Seam } from "../seam/seam.ts";
import { MemoryStore } from "../store/memory.ts";
import { Artifact, type Commit, type Entry } from "../store/store.ts";
import type { ChatMessage } from "../vllm/requests.ts";
import { tinyModel } from "./tiny-model.ts";

/** Keeps the artifact of the last turn. */
class Recording extends MemoryStore {
  last: Artifact | undefined;

  override commit(commit: Commit) {
    this.last = commit.artifact;
    return super.commit(commit);
  }
}

/** Makes artifacts, and makes them again of their records. */
export class Artifacts {
  readonly #model: Model;
  readonly #native: NativeSeam;

  private constructor(model: Model) {
    this.#model = model;
    this.#native = take(native.NativeSeam.on(Model.handle(model), resolveSeamOptions({ model })));
  }

  /** Loads the model, in some milliseconds. Close it after use. */
  static async create(): Promise<Artifacts> {
    return new Artifacts(await tinyModel());
  }

  /** One state for each text that a user says, each going on from the one before. */
  async chain(texts: readonly string[], { tenant = "a", answer = "ok" } = {}): Promise<Artifact[]> {
    const store = new Recording();
    const seam = new Seam({
      model: this.#model,
      store,
      shadow: { first: 0, share: 0 },
      // A salt would give the same history other ids each time.
      cacheDomain: false,
    });
    const messages: ChatMessage[] = [];
    const chain: Artifact[] = [];
    for (const content of texts) {
      messages.push({ role: "user", content });
      const turn = await seam.prepare({ messages }, { tenant, now: new Date(2026, 2, 14, 12) });
      const message = { role: "assistant", content: answer };
      await turn.commit({ message });
      messages.push(message);
      chain.push(store.last as Artifact);
    }
    return chain;
  }

  /** The one state of a conversation that says only this. */
  async one(text: string, options: { tenant?: string; answer?: string } = {}): Promise<Artifact> {
    const [artifact] = await this.chain([text], options);
    return artifact as Artifact;
  }

  /** The artifact that a store gave, as the Seam reads it; `known` is the one that the caller told it has. */
  async of({ id, content }: Entry, tenant: string, known?: Artifact): Promise<Artifact> {
    if (content instanceof Artifact) return content;
    const handle = known === undefined ? null : Artifact.handle(known);
    return new Artifact(take(await this.#native.restore(asBuffer(content), handle, tenant, id)));
  }

  close(): void {
    this.#model.close();
  }
}
