/** Eight processes on the same conversations: nothing is lost, nothing is seen by another tenant, and what came second is kept. */

import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { expect, test } from "vitest";
import { startDatabase } from "../../scripts/postgres.mjs";
import { type ChatMessage, Seam, SqliteStore, type Store } from "../../ts/index.ts";
import { PostgresStore } from "../../ts/store/postgres/index.ts";
import { tinyModel } from "../../ts/testing/tiny-model.ts";
import { CONVERSATIONS, historyOf, tenantOf } from "./contention.mjs";

const PROCESSES = 8;
const TURNS = 60;
const WORKER = join(import.meta.dirname, "contention-worker.mjs");

interface Said {
  readonly number: number;
  readonly text: string;
  readonly status: string;
  readonly messages?: ChatMessage[];
}

/** The first turn of every conversation. */
async function begin(store: Store): Promise<void> {
  const model = await tinyModel();
  const seam = new Seam({ model, store, storeTimeoutMs: 20_000 });
  for (let number = 0; number < CONVERSATIONS; number++) {
    const tenant = tenantOf(number);
    const messages = [{ role: "user", content: `${tenant} begins` }];
    const turn = await seam.prepare({ messages }, { tenant, conversation: `c${number}` });
    expect(await turn.commit({ message: { role: "assistant", content: `Answer to ${tenant}` } })).toEqual({
      status: "committed",
    });
  }
  model.close();
  await store.close();
}

async function fight(kind: string, location: string, open: () => Promise<Store>): Promise<void> {
  await begin(await open());
  const run = promisify(execFile);
  const all = await Promise.all(
    Array.from({ length: PROCESSES }, async (_, at) => {
      const args = [WORKER, kind, location, `p${at}`, String(TURNS)];
      const { stdout } = await run(process.execPath, args, { maxBuffer: 2 ** 28 });
      return JSON.parse(stdout) as Said[];
    }),
  );
  const said = all.flat();
  expect(new Set(said.map(({ status }) => status))).toEqual(new Set(["committed", "branched"]));
  const store = await open();
  const model = await tinyModel();
  const seam = new Seam({ model, store, shadow: { first: 0, share: 0 }, storeTimeoutMs: 20_000 });
  try {
    for (let number = 0; number < CONVERSATIONS; number++) {
      const own = said.filter((one) => one.number === number && one.status === "committed");
      const options = { tenant: tenantOf(number), conversation: `c${number}` };
      expect((await store.load(options.tenant, options.conversation))?.version ?? 0).toBe(own.length + 1);
      const next = await seam.prepare({ append: [{ role: "user", content: "?" }] }, options);
      expect(next.outcome.kind).toBe("certified_suffix");
      const texts = (await historyOf(next))
        .filter(({ role }) => role === "user")
        .map(({ content }) => content);
      expect(texts.shift()).toBe(`${tenantOf(number)} begins`);
      expect(texts.pop()).toBe("?");
      // In the order of their moves, which nobody but the store knows.
      expect([...texts].sort()).toEqual(own.map(({ text }) => text).sort());
    }
    const branches = said.filter(({ status }) => status === "branched");
    expect(branches.length).toBeGreaterThan(10);
    for (const { number, messages } of branches) {
      const request = { messages: [...(messages ?? []), { role: "user", content: "And here?" }] };
      const turn = await seam.prepare(request, { tenant: tenantOf(number) });
      expect(turn.outcome.kind, "a branch is found by its history").toBe("certified_suffix");
    }
  } finally {
    model.close();
    await store.close();
  }
}

test("on SQLite", { timeout: 300_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), "promptseam-contention-"));
  const file = join(folder, "conversations.db");
  try {
    await fight("sqlite", file, () => SqliteStore.open(file));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("on PostgreSQL", { timeout: 300_000 }, async () => {
  const database = await startDatabase();
  const pool = new pg.Pool(database.connection);
  try {
    await PostgresStore.migrate(pool);
    const store = new PostgresStore({ pool });
    for (const tenant of ["even", "odd"]) await store.deleteTenant(tenant);
    await fight("postgres", JSON.stringify(database.connection), async () => new PostgresStore({ pool }));
  } finally {
    await pool.end();
    await database.close();
  }
});
