/** Brings a database's tables up to date, when somebody says so. */

import { PromptseamError } from "../../errors.ts";
import { storeError } from "./failure.ts";
import { guard, ignored, type PostgresClient, type PostgresPool, rowsOf } from "./pool.ts";
import { MIGRATIONS } from "./schema.ts";

const FULL: number = MIGRATIONS.length;

/**
 * Makes or updates the tables and functions of `schema`, all of it or nothing. Whoever else is at it is waited for.
 *
 * @throws PromptseamError `PS_STORE`, also for tables of a newer version
 */
export async function migrate(pool: PostgresPool, schema: string): Promise<void> {
  let client: PostgresClient | undefined;
  let broken = true;
  try {
    client = await guard(pool).connect();
    client.on("error", ignored);
    await migrateOn(client, schema);
    broken = false;
  } catch (error) {
    throw storeError(error, schema);
  } finally {
    client?.off("error", ignored);
    // A connection that is let go of takes its transaction with it.
    client?.release(broken);
  }
}

async function migrateOn(client: PostgresClient, schema: string): Promise<void> {
  await rowsOf(client, "begin");
  await rowsOf(client, "select pg_advisory_xact_lock(hashtextextended($1, 0))", [`promptseam:${schema}`]);
  // `if not exists` asks for the right to make one even where there is one.
  const [there] = await rowsOf(client, "select from pg_namespace where nspname = $1", [schema]);
  if (there === undefined) await rowsOf(client, `create schema "${schema}"`);
  await rowsOf(
    client,
    `create table if not exists "${schema}".schema_version (
       version integer primary key,
       migrated timestamptz not null default now()
     )`,
  );
  const [newest] = await rowsOf(
    client,
    `select coalesce(max(version), 0) as version from "${schema}".schema_version`,
  );
  const version = Number(newest?.["version"]);
  if (version > FULL) {
    throw new PromptseamError(
      "PS_STORE",
      `The tables in the schema "${schema}" are of version ${version}; this promptseam knows those up to ${FULL}. ` +
        "Use the newer promptseam, or another schema.",
    );
  }
  for (const [at, statements] of MIGRATIONS.entries()) {
    if (at < version) continue;
    await rowsOf(client, statements(`"${schema}"`));
    await rowsOf(client, `insert into "${schema}".schema_version (version) values ($1)`, [at + 1]);
  }
  await rowsOf(client, "commit");
}
