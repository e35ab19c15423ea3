import pg from "pg";
import type { Database } from "../../scripts/postgres.mjs";

/** A pool that breaks off what takes longer than a test may. */
export function poolOf(database: Database, max = 8): pg.Pool {
  return new pg.Pool({ ...database.connection, max, connectionTimeoutMillis: 10_000 });
}
