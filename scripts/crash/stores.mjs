// The stores that crash tests are run on.

import { SqliteStore } from "../../dist/index.js";

/** Opens a store by its kind, at a file or at how `pg` connects, as JSON. */
export async function openStore(kind, location) {
  if (kind === "sqlite") return SqliteStore.open(location);
  const [{ default: pg }, { PostgresStore }] = await Promise.all([
    import("pg"),
    import("../../dist/store/postgres/index.js"),
  ]);
  return new PostgresStore({ pool: new pg.Pool({ ...JSON.parse(location), max: 2 }) });
}
