/** Every store keeps the same promises. */

import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type pg from "pg";
import { afterAll, beforeAll, describe, test } from "vitest";
import { type Database, startDatabase } from "../../scripts/postgres.mjs";
import { MemoryStore, SqliteStore, type Store } from "../../ts/index.ts";
import { PostgresStore } from "../../ts/store/postgres/index.ts";
import { storeConformance } from "../../ts/testing/index.ts";
import { poolOf } from "./pool.ts";

describe("MemoryStore", () => {
  for (const { name, run } of storeConformance()) {
    test(name, () => run({ open: () => new MemoryStore() }));
  }
});

describe.each([
  ["SqliteStore", {}],
  ["SqliteStore with a key", { key: randomBytes(32) }],
])("%s", (_, options) => {
  for (const { name, run } of storeConformance({ durable: true })) {
    test(name, async () => {
      const folder = mkdtempSync(join(tmpdir(), "promptseam-conformance-"));
      const open = () => SqliteStore.open(join(folder, "conversations.db"), options);
      try {
        await run({ open, reopen: open });
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }
});

describe.each([
  ["PostgresStore", {}],
  ["PostgresStore with a key", { key: randomBytes(32) }],
])("%s", (_, options) => {
  let database: Database;
  let pool: pg.Pool;
  let schemas = 0;
  let open: () => Store;

  beforeAll(async () => {
    database = await startDatabase();
    pool = poolOf(database);
  });
  afterAll(async () => {
    await pool?.end();
    await database?.close();
  });

  for (const { name, run } of storeConformance({ durable: true })) {
    test(name, async () => {
      const schema = `conformance_${process.pid}_${schemas++}`;
      await PostgresStore.migrate(pool, { schema });
      open = () => new PostgresStore({ pool, schema, ...options });
      try {
        await run({ open, reopen: () => open() });
      } finally {
        await pool.query(`drop schema "${schema}" cascade`);
      }
    });
  }
});
