// The stores that crash tests are run on.

import { SqliteStore } from "../../dist/index.js";

/** Opens a store by its kind, at a file or an address. */
export async function openStore(kind, location) {
  if (kind === "sqlite") return SqliteStore.open(location);
  const [{ default: pg }, { PostgresStore }] = await Promise.all([
    import("pg"),
    import("../../dist/store/postgres.js"),
  ]);
  return new PostgresStore({ pool: new pg.Pool({ connectionString: location, max: 2 }) });
}
