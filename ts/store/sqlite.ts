/** The store in a SQLite file: what one machine's gateways share, and what outlives them. */

import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { PromptseamError } from "../errors.ts";
import { asBuffer, type NativeSqlite, native, take } from "../native.ts";
import { checkDigests, checkIds, listLimit } from "./limits.ts";
import {
  Artifact,
  type Checkpoint,
  type Commit,
  type CommitStatus,
  type ConversationInfo,
  type Entry,
  type ListOptions,
  type Store,
  type StoreStats,
} from "./store.ts";

/** Options of {@link SqliteStore.open}. */
export interface SqliteStoreOptions {
  /**
   * When a commit is on the disk. `normal` (default): when the operating system writes it, within seconds; a killed process
   * loses nothing, a power cut or a crash of the system may lose the last commits, and never damages the file. `full`: before
   * `turn.committed` settles, which takes what the disk takes to write.
   */
  readonly synchronous?: "normal" | "full";
  /** Bytes of records that are kept; the least recently used conversations leave first. Default 4 GiB; `Infinity` for no bound. */
  readonly maxBytes?: number;
  /**
   * 32 bytes from a cryptographic random source: records and salts are encrypted with it (AES-256-GCM, a key of its own for each
   * tenant), and the digests of histories are hidden. Ids of tenants, conversations and projects are not. The key cannot be
   * changed or added later.
   */
  readonly key?: Uint8Array;
  /** Fail where there is no file, and never write. */
  readonly readOnly?: boolean;
}

/** Counts of a {@link SqliteStore}. */
export interface SqliteStats extends StoreStats {
  /** Bytes of the file, without its write-ahead log. */
  readonly fileBytes: number;
}

/** What {@link SqliteStore.verify} found. */
export interface Verification {
  /** Records looked at. */
  readonly artifacts: number;
  /** Records that cannot be read, or are not what their id says. */
  readonly damaged: number;
  /** Artifacts without the one they went on from. */
  readonly orphans: number;
  /** What SQLite found wrong with the file itself. */
  readonly file: readonly string[];
}

const DEFAULT_MAX_BYTES = 4 * 1024 ** 3;

/**
 * A store in a file that only its owner can read. It works on a thread of its own; several processes may have the file open.
 *
 * ```ts
 * const store = await SqliteStore.open("./conversations.db");
 * const seam = new Seam({ model, client, store });
 * ```
 */
export class SqliteStore implements Store {
  readonly holdsArtifacts = false;
  readonly #native: NativeSqlite;
  #refused = 0;

  private constructor(handle: NativeSqlite) {
    this.#native = handle;
  }

  /**
   * Opens a file, or makes it with the folders it is in.
   *
   * @throws PromptseamError `PS_STORE` for a file that cannot be used, `PS_INVALID_ARGUMENT`
   */
  static async open(path: string, options: SqliteStoreOptions = {}): Promise<SqliteStore> {
    const { synchronous = "normal", maxBytes = DEFAULT_MAX_BYTES, key, readOnly = false } = options;
    if (synchronous !== "normal" && synchronous !== "full")
      throw new PromptseamError("PS_INVALID_ARGUMENT", 'synchronous must be "normal" or "full".');
    if (!(maxBytes >= 1))
      throw new PromptseamError("PS_INVALID_ARGUMENT", "maxBytes must be a count of bytes.");
    const file = resolve(path);
    if (!readOnly) await makeFolder(dirname(file));
    const bound = Number.isFinite(maxBytes) ? { maxBytes } : {};
    const settings = { full: synchronous === "full", readOnly, ...bound };
    return new SqliteStore(take(await native.NativeSqlite.open(file, settings, key && asBuffer(key))));
  }

  async load(tenant: string, conversation: string, known?: string): Promise<Checkpoint | undefined> {
    checkIds(tenant, conversation);
    const found = take(await this.#counted(this.#native.load(tenant, conversation, known, Date.now())));
    if (found === null) return undefined;
    const { version, tip } = found;
    return { version, tip: tip && entryOf(tip) };
  }

  async find(tenant: string, digests: readonly string[], known?: string): Promise<Entry | undefined> {
    checkIds(tenant);
    checkDigests(digests);
    const found = take(await this.#counted(this.#native.find(tenant, digests.join(""), known, Date.now())));
    return found === null ? undefined : entryOf(found);
  }

  async commit(commit: Commit): Promise<CommitStatus> {
    const { artifact, conversation, project, expires, version, toolRound, turn } = commit;
    checkIds(commit.tenant, conversation, project, turn);
    const handle = Artifact.handle(artifact);
    const now = Date.now();
    const moved = take(
      await this.#native.commit(handle, conversation, project ?? "", expires, version, toolRound, turn, now),
    );
    return moved ? "committed" : "branched";
  }

  async abandon(tenant: string, conversation: string): Promise<boolean> {
    checkIds(tenant, conversation);
    return take(await this.#native.abandon(tenant, conversation));
  }

  async list(tenant: string, options: ListOptions = {}): Promise<readonly ConversationInfo[]> {
    const { project, after } = options;
    checkIds(tenant, project, after);
    const listed = take(await this.#native.list(tenant, project, after, listLimit(options.limit)));
    return listed.map((one) => ({ ...one, messages: one.messages ?? null, tokens: one.tokens ?? null }));
  }

  async move(tenant: string, conversation: string, project: string): Promise<boolean> {
    checkIds(tenant, conversation, project);
    return take(await this.#native.moveTo(tenant, conversation, project));
  }

  async delete(tenant: string, conversation: string): Promise<boolean> {
    checkIds(tenant, conversation);
    return take(await this.#native.delete(tenant, conversation));
  }

  async deleteTenant(tenant: string): Promise<number> {
    checkIds(tenant);
    return take(await this.#native.deleteTenant(tenant));
  }

  async expire(): Promise<number> {
    return take(await this.#native.expire(Date.now()));
  }

  async salt(tenant: string, domain: string): Promise<string> {
    checkIds(tenant, domain);
    return take(await this.#native.salt(tenant, domain, randomBytes(32).toString("base64url")));
  }

  async stats(): Promise<SqliteStats> {
    return { ...take(await this.#native.counts()), refused: this.#refused };
  }

  /** The names of all tenants, in order. For whoever keeps the file, not for one of them. */
  async tenants(): Promise<readonly string[]> {
    return take(await this.#native.tenants());
  }

  /** Looks at every page and every record. Reads the whole file; other calls wait meanwhile. */
  async verify(): Promise<Verification> {
    return take(await this.#native.verify());
  }

  /**
   * Copies the file as it is now to a new one, while it goes on being used.
   *
   * @throws PromptseamError `PS_STORE`, also where there is a file already
   */
  async backUp(path: string): Promise<void> {
    take(await this.#native.backUp(resolve(path)));
  }

  async close(): Promise<void> {
    const closed = await this.#native.close();
    // Closing twice is no trouble.
    if ((closed as { failed?: string } | null)?.failed !== "PS_CLOSED") take(closed);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #counted<T>(outcome: Promise<T>): Promise<T> {
    const given = await outcome;
    if ((given as { failed?: string } | null)?.failed === "PS_RECORD_REFUSED") this.#refused++;
    return given;
  }
}

function entryOf(stored: { id: string; expires: number; records: Buffer }): Entry {
  return { id: stored.id, expires: stored.expires, content: stored.records };
}

async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new PromptseamError("PS_STORE", "The folder of the store's file cannot be made.", { cause });
  }
}
