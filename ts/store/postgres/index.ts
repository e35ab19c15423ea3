/** `promptseam/store/postgres`: a store that many machines share. */

export type { PostgresClient, PostgresPool, PostgresQuery } from "./pool.ts";
export { PostgresStore, type PostgresStoreOptions } from "./store.ts";
