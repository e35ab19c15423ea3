/** What a store needs of `pg`, by shape: nobody needs its types, or its package, who has another store. */

/** One statement, unnamed: behind a transaction pooler the next one may meet another session. */
export interface PostgresQuery {
  readonly text: string;
  readonly values?: unknown[];
  readonly types?: { getTypeParser(oid: number, format?: string): (value: string) => unknown };
}

/** A `pg.PoolClient`. */
export interface PostgresClient {
  query(query: PostgresQuery): Promise<{ readonly rows: unknown[] }>;
  release(broken?: boolean): void;
  on(event: "error", listener: (error: Error) => void): unknown;
  off(event: "error", listener: (error: Error) => void): unknown;
}

/** A `pg.Pool`. It stays the caller's: its size, deadlines and end too. */
export interface PostgresPool {
  query(query: PostgresQuery): Promise<{ readonly rows: unknown[] }>;
  connect(): Promise<PostgresClient>;
  on(event: "error", listener: (error: Error) => void): unknown;
}

/** A row as it came: text, or null. */
export type Row = Readonly<Record<string, string | null>>;

/** Values are read here, not by parsers that somebody may have set for the whole process. */
const AS_TEXT = { getTypeParser: () => (value: string) => value };

/** The rows of one statement. */
export async function rowsOf(
  on: Pick<PostgresPool, "query">,
  text: string,
  values: readonly unknown[] = [],
): Promise<readonly Row[]> {
  const { rows } = await on.query({ text, values: [...values], types: AS_TEXT });
  return rows as Row[];
}

const guarded = new WeakSet<PostgresPool>();

/**
 * An idle connection that breaks is the pool's to replace; the next statement meets what is wrong with the server. Without a
 * listener Node would end the process, also while the pool ends.
 */
export function guard(pool: PostgresPool): PostgresPool {
  if (!guarded.has(pool)) pool.on("error", ignored);
  guarded.add(pool);
  return pool;
}

export function ignored(): void {}
