/** The store in PostgreSQL: what many machines share. */

import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { PromptseamError } from "../../errors.ts";
import { asBuffer, type NativeVault, native, take } from "../../native.ts";
import { checkDigests, checkIds, listLimit } from "../limits.ts";
import type {
  Checkpoint,
  Commit,
  CommitStatus,
  ConversationInfo,
  Entry,
  ListOptions,
  Store,
  StoreStats,
} from "../store.ts";
import { isPassing, storeError } from "./failure.ts";
import { migrate } from "./migrate.ts";
import { guard, type PostgresPool, type Row, rowsOf } from "./pool.ts";

/** Options of {@link PostgresStore}. */
export interface PostgresStoreOptions {
  /** A `pg.Pool`. It stays yours: end it after the store is closed. */
  readonly pool: PostgresPool;
  /** Where the tables are: lower-case letters, digits and underscores. Default `promptseam`. */
  readonly schema?: string;
  /**
   * 32 bytes from a cryptographic random source: records and salts are encrypted with it (AES-256-GCM, a key of its own for each
   * tenant), and the digests of histories are hidden. Ids of tenants, conversations and projects are not. The key cannot be
   * changed or added later.
   */
  readonly key?: Uint8Array;
  /** Bytes of records that are kept; the least recently used conversations leave first. Default: no bound. */
  readonly maxBytes?: number;
}

/** What was there is looked through at most so often by each store, in milliseconds. */
const SWEEP_MS = 60_000;
/** Before a statement is tried again, in milliseconds. */
const PAUSE_MS = 20;
/** Families that one transaction removes. */
const SWEPT_AT_ONCE = 500;

/**
 * A store in PostgreSQL. Several processes may use the same tables, also through a pooler that gives each transaction another
 * session. `load`, `find` and `commit` are one round trip each, and are tried once more where the connection broke.
 *
 * ```ts
 * const pool = new pg.Pool({ connectionString });
 * await PostgresStore.migrate(pool); // once for each version, as a role that may create tables
 * const seam = new Seam({ model, client, store: new PostgresStore({ pool }) });
 * ```
 */
export class PostgresStore implements Store {
  readonly holdsArtifacts = false;
  readonly #pool: PostgresPool;
  readonly #schema: string;
  readonly #vault: NativeVault | undefined;
  readonly #maxBytes: number;
  readonly #underWay = new Set<Promise<unknown>>();
  #closed = false;
  /** By `performance.now()`. */
  #swept = Number.NEGATIVE_INFINITY;
  #hits = 0;
  #misses = 0;
  #evictions = 0;
  #refused = 0;

  /** @throws PromptseamError `PS_INVALID_ARGUMENT` */
  constructor({
    pool,
    schema = "promptseam",
    key,
    maxBytes = Number.POSITIVE_INFINITY,
  }: PostgresStoreOptions) {
    this.#schema = checkedSchema(schema);
    if (!(maxBytes >= 1))
      throw new PromptseamError("PS_INVALID_ARGUMENT", "maxBytes must be a count of bytes.");
    this.#maxBytes = maxBytes;
    this.#vault = key && take(native.NativeVault.of(asBuffer(key)));
    this.#pool = guard(pool);
  }

  /**
   * Makes the tables, or brings those of an older version up to date; harmless where they are. No store ever does so by itself.
   *
   * @throws PromptseamError `PS_STORE`, also for tables of a newer version; `PS_INVALID_ARGUMENT`
   */
  static async migrate(
    pool: PostgresPool,
    { schema = "promptseam" }: { schema?: string } = {},
  ): Promise<void> {
    await migrate(pool, checkedSchema(schema));
  }

  async load(tenant: string, conversation: string, known?: string): Promise<Checkpoint | undefined> {
    checkIds(tenant, conversation);
    const values = [utf8(tenant), utf8(conversation), bytesOf(known)];
    const [row] = await this.#call("load", values, { again: true });
    const tip = this.#entry(tenant, row);
    return row === undefined ? undefined : { version: Number(row["version"]), tip };
  }

  async find(tenant: string, digests: readonly string[], known?: string): Promise<Entry | undefined> {
    checkIds(tenant);
    checkDigests(digests);
    const blind = digests.map((digest) => bytesOf(this.#vault?.blind(tenant, digest) ?? digest) as Buffer);
    const values = [utf8(tenant), Buffer.concat(blind), bytesOf(known)];
    const [row] = await this.#call("find", values, { again: true });
    return this.#entry(tenant, row);
  }

  async commit(commit: Commit): Promise<CommitStatus> {
    const { tenant, conversation, project = "", artifact, expires, version, toolRound, turn } = commit;
    checkIds(tenant, conversation, project, turn);
    const record = await artifact.record();
    const values = [
      utf8(tenant),
      conversation === undefined ? null : utf8(conversation),
      utf8(project),
      version,
      toolRound,
      utf8(turn),
      bytesOf(artifact.id),
      bytesOf(artifact.parent),
      bytesOf(this.#vault?.blind(tenant, artifact.digest) ?? artifact.digest),
      expires,
      artifact.messages,
      artifact.tokens,
      this.#sealed(tenant, record),
    ];
    const [row] = await this.#call("commit", values, { again: true });
    this.#sweep();
    return row?.["answer"] as CommitStatus;
  }

  async abandon(tenant: string, conversation: string): Promise<boolean> {
    checkIds(tenant, conversation);
    return isTrue(await this.#call("abandon", [utf8(tenant), utf8(conversation)]));
  }

  async list(tenant: string, options: ListOptions = {}): Promise<readonly ConversationInfo[]> {
    const { project, after } = options;
    checkIds(tenant, project, after);
    const some = (id: string | undefined) => (id === undefined ? null : utf8(id));
    const values = [utf8(tenant), some(project), some(after), listLimit(options.limit)];
    return (await this.#call("list", values, { again: true })).map((row) => ({
      conversation: text(row["conversation"]),
      project: text(row["project"]),
      version: Number(row["version"]),
      messages: count(row["messages"]),
      tokens: count(row["tokens"]),
      toolRound: row["tool_round"] === "t",
      updated: Number(row["updated"]),
    }));
  }

  async move(tenant: string, conversation: string, project: string): Promise<boolean> {
    checkIds(tenant, conversation, project);
    const values = [utf8(tenant), utf8(conversation), utf8(project)];
    return isTrue(await this.#call("move", values, { again: true }));
  }

  async delete(tenant: string, conversation: string): Promise<boolean> {
    checkIds(tenant, conversation);
    return isTrue(await this.#call("delete", [utf8(tenant), utf8(conversation)]));
  }

  async deleteTenant(tenant: string): Promise<number> {
    checkIds(tenant);
    const [row] = await this.#call("delete_tenant", [utf8(tenant)]);
    return Number(row?.["answer"]);
  }

  /** Removes what has expired, and what is over the bound, some hundred conversations at a time. Reads all families. */
  async expire(): Promise<number> {
    return this.#expire(true);
  }

  async salt(tenant: string, domain: string): Promise<string> {
    checkIds(tenant, domain);
    const fresh = Buffer.from(randomBytes(32).toString("base64url"));
    const values = [utf8(tenant), utf8(domain), this.#sealed(tenant, fresh)];
    const [row] = await this.#call("salt", values, { again: true });
    return this.#opened(tenant, hex(row?.["answer"])).toString();
  }

  /** Counts. Reads all families and conversations. */
  async stats(): Promise<StoreStats> {
    const [row] = await this.#call("stats", [], { again: true });
    return {
      conversations: Number(row?.["conversations"]),
      artifacts: Number(row?.["artifacts"]),
      bytes: Number(row?.["bytes"]),
      hits: this.#hits,
      misses: this.#misses,
      evictions: this.#evictions,
      refused: this.#refused,
    };
  }

  /** Waits for what is under way. The pool stays open. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#underWay);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #entry(tenant: string, row: Row | undefined): Entry | undefined {
    const id = row?.["id"];
    if (row === undefined || id === undefined || id === null) {
      this.#misses++;
      return undefined;
    }
    const content = this.#opened(tenant, hex(row["records"]));
    this.#hits++;
    return { id, expires: Number(row["expires"]), content };
  }

  #sealed(tenant: string, bytes: Uint8Array): Buffer {
    const plain = asBuffer(bytes);
    return this.#vault === undefined ? plain : take(this.#vault.seal(tenant, plain));
  }

  #opened(tenant: string, bytes: Buffer): Buffer {
    if (this.#vault === undefined) return bytes;
    try {
      return take(this.#vault.open(tenant, bytes));
    } catch (error) {
      this.#refused++;
      throw error;
    }
  }

  /** Nobody waits for it, and one process at a time does it. */
  #sweep(): void {
    const now = performance.now();
    if (now - this.#swept < SWEEP_MS) return;
    this.#swept = now;
    this.#expire(false).catch(() => {});
  }

  async #expire(wait: boolean): Promise<number> {
    const values = [this.#maxBytes, SWEPT_AT_ONCE, wait];
    let removed = 0;
    for (;;) {
      const [row] = await this.#call("expire", values);
      removed += Number(row?.["artifacts"] ?? 0);
      if (Number(row?.["families"] ?? 0) === 0) break;
    }
    this.#evictions += removed;
    return removed;
  }

  /** Calls a function of the schema; `again`: as often as one likes, it does the same. */
  async #call(name: string, values: readonly unknown[], { again = false } = {}): Promise<readonly Row[]> {
    if (this.#closed) throw new PromptseamError("PS_CLOSED", "The store was closed.");
    const places = values.map((_, at) => `$${at + 1}`).join(", ");
    const statement = `select * from "${this.#schema}".${name}(${places}) as answer`;
    const work = this.#run(statement, values, again);
    this.#underWay.add(work);
    try {
      return await work;
    } catch (error) {
      throw storeError(error, this.#schema);
    } finally {
      this.#underWay.delete(work);
    }
  }

  async #run(statement: string, values: readonly unknown[], again: boolean): Promise<readonly Row[]> {
    try {
      return await rowsOf(this.#pool, statement, values);
    } catch (error) {
      if (!again || !isPassing(error)) throw error;
      // Where one connection broke, so did others: the pool is given time to see it.
      await sleep(PAUSE_MS);
      return rowsOf(this.#pool, statement, values);
    }
  }
}

/** Part of every statement. */
function checkedSchema(schema: string): string {
  if (/^[a-z_][a-z0-9_]{0,62}$/.test(schema)) return schema;
  throw new PromptseamError(
    "PS_INVALID_ARGUMENT",
    "schema must be at most 63 lower-case letters, digits and underscores, and begin with no digit.",
  );
}

function utf8(id: string): Buffer {
  return Buffer.from(id);
}

/** The 32 bytes of a digest or an artifact's id. */
function bytesOf(digits: string | undefined): Buffer | null {
  if (digits === undefined) return null;
  if (/^[0-9a-f]{64}$/.test(digits)) return Buffer.from(digits, "hex");
  throw new PromptseamError(
    "PS_INVALID_ARGUMENT",
    "Ids of artifacts, and digests, are 64 hexadecimal digits.",
  );
}

function hex(value: string | null | undefined): Buffer {
  return Buffer.from(value ?? "", "hex");
}

function text(value: string | null | undefined): string {
  return hex(value).toString();
}

function count(value: string | null | undefined): number | null {
  return value === null || value === undefined ? null : Number(value);
}

function isTrue([row]: readonly Row[]): boolean {
  return row?.["answer"] === "t";
}
