/** The store in PostgreSQL on a real server: contention, broken connections, migrations, retention, encryption. */

import { randomBytes, randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Database, startDatabase } from "../../scripts/postgres.mjs";
import { type Artifact, type Commit, type Model, Seam } from "../../ts/index.ts";
import { PostgresStore } from "../../ts/store/postgres/index.ts";
import { Artifacts } from "../../ts/testing/artifacts.ts";
import { tinyModel } from "../../ts/testing/tiny-model.ts";
import { assistant, BARE, called, NOW, result, user } from "../seam/support.ts";
import { poolOf } from "./pool.ts";

/** Somebody else's server: neither stopped nor logged in to as somebody else. */
const GIVEN = process.env["DATABASE_URL"] !== undefined;
const DIGEST = "0".repeat(64);

let database: Database;
let pool: pg.Pool;
let artifacts: Artifacts;
let schema: string;
let schemas = 0;

beforeAll(async () => {
  database = await startDatabase();
  pool = poolOf(database);
  artifacts = await Artifacts.create();
});
afterAll(async () => {
  artifacts?.close();
  await pool?.end();
  await database?.close();
});
beforeEach(async () => {
  schema = `test_${process.pid}_${schemas++}`;
  return async () => {
    await pool.query(`drop schema if exists "${schema}" cascade`);
  };
});

async function migrated(options: Partial<ConstructorParameters<typeof PostgresStore>[0]> = {}) {
  await PostgresStore.migrate(pool, { schema });
  return new PostgresStore({ pool, schema, ...options });
}

function turnOf(artifact: Artifact, more: Partial<Commit> = {}): Commit {
  return {
    tenant: "a",
    conversation: "c",
    artifact,
    expires: Number.POSITIVE_INFINITY,
    version: 0,
    toolRound: false,
    turn: randomUUID(),
    ...more,
  };
}

/** One column of one row. */
async function value(text: string): Promise<string> {
  const { rows } = await pool.query({ text, rowMode: "array" });
  return String(rows[0]?.[0]);
}

/** What must hold of the tables whatever was done to them. */
async function expectSound(): Promise<void> {
  const unsound = {
    orphans: `select count(*) from "${schema}".artifacts a where parent is not null and not exists (
      select from "${schema}".artifacts p where p.artifact = a.parent and p.family = a.family and p.tenant = a.tenant)`,
    families: `select count(*) from "${schema}".families f left join lateral (
      select count(*) as held, sum(400 + length(a.record)) as size from "${schema}".artifacts a where a.family = f.family
      ) counted on true where (f.artifacts, f.bytes) is distinct from (counted.held, counted.size)`,
    tenants: `select count(*) from "${schema}".artifacts a join "${schema}".families f using (family)
      where a.tenant <> f.tenant`,
    begun: `select count(*) from "${schema}".conversations where version = 0`,
    kept: `select count(*) from "${schema}".conversations c where not exists (
      select from "${schema}".artifacts a join "${schema}".family_conversations o using (family)
      where a.artifact = coalesce(c.round, c.head) and o.conversation = c.conversation)
      and exists (select from "${schema}".artifacts a where a.artifact = coalesce(c.round, c.head))`,
  };
  for (const [what, text] of Object.entries(unsound)) expect([what, await value(text)]).toEqual([what, "0"]);
}

describe("migrations", () => {
  test("a database without tables is an error that says what to do, for every call", async () => {
    const store = new PostgresStore({ pool, schema });
    const artifact = await artifacts.one("One?");
    const calls = [
      () => store.load("a", "c"),
      () => store.find("a", [DIGEST]),
      () => store.commit(turnOf(artifact)),
      () => store.list("a"),
      () => store.expire(),
      () => store.salt("a", "d"),
      () => store.stats(),
    ];
    for (const call of calls) {
      await expect(call()).rejects.toMatchObject({
        code: "PS_STORE",
        message: expect.stringContaining(`PostgresStore.migrate(pool, { schema: "${schema}" })`),
      });
    }
    await pool.query(`create schema "${schema}"`);
    await expect(store.load("a", "c")).rejects.toThrow(/PostgresStore\.migrate/);
  });

  test("may be run again, by several at once, and keep what is there", async () => {
    await Promise.all(Array.from({ length: 4 }, () => PostgresStore.migrate(pool, { schema })));
    const store = new PostgresStore({ pool, schema });
    await store.commit(turnOf(await artifacts.one("One?")));
    await PostgresStore.migrate(pool, { schema });
    expect(await store.load("a", "c")).toMatchObject({ version: 1, tip: expect.anything() });
    expect(await value(`select count(*) from "${schema}".schema_version`)).toBe("1");
  });

  test("of a newer promptseam are left alone", async () => {
    await PostgresStore.migrate(pool, { schema });
    await pool.query(`insert into "${schema}".schema_version (version) values (99)`);
    await expect(PostgresStore.migrate(pool, { schema })).rejects.toMatchObject({
      code: "PS_STORE",
      message: expect.stringContaining("of version 99"),
    });
  });

  test("that fail leave nothing, not even a locked database", async () => {
    await pool.query(`create schema "${schema}"; create table "${schema}".tenants (other integer)`);
    await expect(PostgresStore.migrate(pool, { schema })).rejects.toMatchObject({ code: "PS_STORE" });
    expect(
      await value(`select string_agg(tablename, ',') from pg_tables where schemaname = '${schema}'`),
    ).toBe("tenants");
    await pool.query(`drop table "${schema}".tenants`);
    await PostgresStore.migrate(pool, { schema });
  });

  test.skipIf(GIVEN)("are for one role, and the store for another that may do less", async () => {
    const role = `${schema}_app`;
    await PostgresStore.migrate(pool, { schema });
    await pool.query(`create role "${role}" login`);
    const theirs = new pg.Pool({ ...database.connection, user: role, max: 2 });
    try {
      const store = new PostgresStore({ pool: theirs, schema });
      await expect(store.load("a", "c")).rejects.toMatchObject({
        code: "PS_STORE",
        message: expect.stringContaining("role may not use"),
      });
      await pool.query(`grant usage on schema "${schema}" to "${role}";
        grant select, insert, update, delete on all tables in schema "${schema}" to "${role}"`);
      expect(await store.commit(turnOf(await artifacts.one("One?")))).toBe("committed");
      await store.salt("a", "d");
      expect(await store.expire()).toBe(0);
      expect(await store.deleteTenant("a")).toBe(1);
      await expect(PostgresStore.migrate(theirs, { schema: `${schema}_other` })).rejects.toMatchObject({
        code: "PS_STORE",
      });
      await store.close();
    } finally {
      await theirs.end();
      await pool.query(`drop owned by "${role}"; drop role "${role}"`);
    }
  });

  test.each(["", "Upper", 'quo"te', "a-b", "1a", "x".repeat(64), "a;b", "$body$"])(
    "%j is no schema",
    async (name) => {
      const refused = expect.objectContaining({ code: "PS_INVALID_ARGUMENT" });
      expect(() => new PostgresStore({ pool, schema: name })).toThrow(refused);
      await expect(PostgresStore.migrate(pool, { schema: name })).rejects.toEqual(refused);
    },
  );
});

describe("statements", () => {
  test("are one for each call of a turn, and leave nothing in the session", async () => {
    const one = poolOf(database, 1);
    const store = await migrated({ pool: one });
    // What sweeps in the background is no part of a turn.
    const chain = await artifacts.chain(["One?", "Two?"]);
    await store.commit(turnOf(chain[0] as Artifact));
    await store.expire();
    let statements = 0;
    const query = one.query.bind(one);
    one.query = ((...args: Parameters<typeof query>) => {
      statements++;
      return query(...args);
    }) as typeof one.query;
    await store.load("a", "c");
    await store.find("a", [DIGEST, (chain[0] as Artifact).digest]);
    await store.commit(turnOf(chain[1] as Artifact, { version: 1 }));
    expect(statements).toBe(3);
    const left = await one.query(`select
      (select count(*)::int from pg_prepared_statements) as prepared,
      (select count(*)::int from pg_locks where locktype = 'advisory') as locks,
      current_setting('enable_seqscan') as seqscan, current_setting('jit') as jit`);
    const fresh = await pool.query("select current_setting('jit') as jit");
    expect(left.rows).toEqual([{ prepared: 0, locks: 0, seqscan: "on", jit: fresh.rows[0].jit }]);
    await store.close();
    await one.end();
  });

  test("never read a whole table, whatever was there when a session planned them", async () => {
    const own = poolOf(database, 1);
    const store = await migrated({ pool: own });
    const chain = await artifacts.chain(["One?", "Two?", "Three?"]);
    for (let round = 0; round < 12; round++) {
      for (const [version, artifact] of chain.entries()) {
        await store.commit(turnOf(artifact, { version, toolRound: version === 2 }));
      }
      await store.load("a", "c");
      await store.find("a", [DIGEST, (chain[1] as Artifact).digest], (chain[0] as Artifact).id);
      await store.list("a", { after: "b", project: "" });
      await store.move("a", "c", "p");
      await store.salt("a", "d");
      await store.abandon("a", "c");
      await (round % 2 === 0 ? store.delete("a", "c") : store.deleteTenant("a"));
      await store.expire();
    }
    await store.close();
    await own.end();
    // A session counts what it read when it ends.
    await sleep(500);
    const { rows } = await pool.query(
      "select relname, seq_scan from pg_stat_user_tables where schemaname = $1 and relname <> 'schema_version'",
      [schema],
    );
    // The bound is on all families together: twelve times as told, and once after the first turn.
    const whole = {
      tenants: 0,
      salts: 0,
      families: 13,
      artifacts: 0,
      conversations: 0,
      family_conversations: 0,
    };
    expect(Object.fromEntries(rows.map(({ relname, seq_scan }) => [relname, Number(seq_scan)]))).toEqual(
      whole,
    );
  });

  test("are read without the process's own parsers", async () => {
    const odd = new pg.Pool({
      ...database.connection,
      max: 2,
      types: { getTypeParser: () => () => "nonsense" },
    } as pg.PoolConfig);
    const store = await migrated({ pool: odd });
    const artifact = await artifacts.one("One?");
    expect(await store.commit(turnOf(artifact))).toBe("committed");
    expect(await store.load("a", "c")).toMatchObject({ version: 1, tip: { id: artifact.id } });
    expect(await store.list("a")).toMatchObject([{ conversation: "c", version: 1 }]);
    await store.close();
    await odd.end();
  });

  test("that fail tell nothing of what was asked", async () => {
    const store = await migrated();
    await pool.query(`drop table "${schema}".conversations cascade`);
    const error = await store.load("secret-tenant", "secret-conversation").catch((thrown) => thrown);
    expect(error).toMatchObject({ code: "PS_STORE" });
    expect(`${error.message} ${error.cause.message}`).not.toContain("secret");
  });
});

describe("contention", () => {
  test("eight clients on 200 conversations: no turn is lost, each conflict is a branch", async () => {
    const first = await migrated();
    const WORKERS = 8;
    const TURNS = 60;
    const root = await artifacts.one("Root?");
    await first.commit(turnOf(root, { conversation: undefined }));
    const names = Array.from({ length: 200 }, (_, at) => `c${at}`);
    const committed = new Map<string, number>();
    /** Versions that a turn moved its conversation from: one turn each. */
    const moved = new Set<string>();
    const kept: Artifact[] = [];
    let branched = 0;
    const work = async (worker: number) => {
      const own = poolOf(database, 2);
      const store = new PostgresStore({ pool: own, schema });
      for (let turn = 0; turn < TURNS; turn++) {
        // Half of them in one family, the others each in one of their own; a few conversations are fought for.
        const text = `Worker ${worker}, turn ${turn}?`;
        const artifact =
          turn % 2 === 0
            ? await artifacts.one(text)
            : ((await artifacts.chain(["Root?", text]))[1] as Artifact);
        const conversation = names[turn % 3 === 0 ? turn % 4 : (worker * 31 + turn * 7) % 200] as string;
        const version = (await store.load("a", conversation))?.version ?? 0;
        const status = await store.commit(turnOf(artifact, { conversation, version }));
        if (status === "branched") branched++;
        else {
          committed.set(conversation, (committed.get(conversation) ?? 0) + 1);
          const from = `${version} of ${conversation}`;
          expect(moved).not.toContain(from);
          moved.add(from);
        }
        kept.push(artifact);
      }
      await store.close();
      await own.end();
    };
    await Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(worker)));
    const listed = await first.list("a", { limit: 1_000 });
    expect(Object.fromEntries(listed.map(({ conversation, version }) => [conversation, version]))).toEqual(
      Object.fromEntries(committed),
    );
    expect([...committed.values()].reduce((sum, count) => sum + count) + branched).toBe(WORKERS * TURNS);
    expect(branched).toBeGreaterThan(0);
    for (const artifact of kept) expect((await first.find("a", [artifact.digest]))?.id).toBe(artifact.id);
    expect((await first.stats()).artifacts).toBe(WORKERS * TURNS + 1);
    await expectSound();
    await first.close();
  });

  test("conversations that went through the same, deleted at once, leave nothing", async () => {
    const store = await migrated();
    const chain = await artifacts.chain(["One?", "Two?"]);
    const names = ["c", "d", "e", "f"];
    for (let round = 0; round < 40; round++) {
      for (const conversation of names) {
        for (const [version, artifact] of chain.entries()) {
          await store.commit(turnOf(artifact, { conversation, version }));
        }
      }
      const known = await Promise.all(names.map((conversation) => store.delete("a", conversation)));
      expect(known).toEqual([true, true, true, true]);
      expect(await store.stats()).toMatchObject({ conversations: 0, artifacts: 0, bytes: 0 });
    }
    await store.close();
  });

  test("every kind of call at once, and nothing deadlocks or dangles", async () => {
    const own = poolOf(database, 8);
    const store = await migrated({ pool: own, maxBytes: 60_000 });
    const tenants = ["a", "b"];
    const chains: Record<string, Artifact[][]> = {};
    for (const tenant of tenants) {
      chains[tenant] = await Promise.all(
        Array.from({ length: 6 }, (_, at) =>
          artifacts.chain([`One ${at % 3}?`, `Two ${at}?`, `Three ${at}?`], { tenant }),
        ),
      );
    }
    const deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    const before = await value(deadlocks);
    const refused: string[] = [];
    const work = async (worker: number) => {
      let state = worker + 1;
      const below = (limit: number) => {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
        return (state >>> 8) % limit;
      };
      for (let step = 0; step < 150; step++) {
        const tenant = tenants[below(2)] as string;
        const conversation = `c${below(3)}`;
        const kind = below(40);
        if (kind === 0) await store.deleteTenant(tenant);
        else if (kind < 4) await store.delete(tenant, conversation);
        else if (kind < 6) await store.expire();
        else if (kind < 8) await store.abandon(tenant, conversation);
        else if (kind < 10) await store.move(tenant, conversation, `p${below(2)}`);
        else if (kind < 12) await store.salt(tenant, `d${below(2)}`);
        else {
          const artifact = chains[tenant]?.[below(6)]?.[below(3)] as Artifact;
          const version = (await store.load(tenant, conversation))?.version ?? 0;
          const more = { tenant, conversation, version, toolRound: below(3) === 0 };
          const expires = below(3) === 0 ? Date.now() + below(40) : Number.POSITIVE_INFINITY;
          await store.commit(turnOf(artifact, { ...more, expires })).catch((error) => {
            refused.push(error.message);
          });
        }
      }
    };
    await Promise.all(Array.from({ length: 8 }, (_, worker) => work(worker)));
    expect(new Set(refused)).toEqual(new Set(["What the turn went on from is no longer in the store."]));
    await expectSound();
    for (const tenant of tenants) await store.deleteTenant(tenant);
    expect(await store.stats()).toMatchObject({ conversations: 0, artifacts: 0, bytes: 0 });
    await store.close();
    await own.end();
    // A session counts what it saw when it ends.
    await sleep(500);
    expect(await value(deadlocks)).toBe(before);
  });
});

describe("broken connections", () => {
  test("a commit whose connection breaks is recorded once", async () => {
    const own = poolOf(database, 2);
    const store = await migrated({ pool: own });
    const [first, second] = (await artifacts.chain(["One?", "Two?"])) as [Artifact, Artifact];
    await store.commit(turnOf(first));
    await store.expire();
    const holder = await pool.connect();
    await holder.query(`begin; select from "${schema}".conversations for update`);
    const committing = store.commit(turnOf(second, { version: 1 }));
    const waiting = `select pid from pg_stat_activity where wait_event_type = 'Lock' and query like '%"${schema}".commit%'`;
    const waiters = () =>
      expect.poll(async () => (await pool.query(waiting)).rows.length, { timeout: 10_000 });
    await waiters().toBe(1);
    await pool.query(`select pg_terminate_backend(pid) from (${waiting}) as stuck`);
    await waiters().toBe(1);
    await holder.query("rollback");
    holder.release();
    expect(await committing).toBe("committed");
    expect(await store.load("a", "c")).toMatchObject({ version: 2, tip: { id: second.id } });
    await store.close();
    await own.end();
  });

  test("idle ones are replaced, and end no process", async () => {
    const own = poolOf(database, 4);
    const store = await migrated({ pool: own });
    const artifact = await artifacts.one("One?");
    await store.commit(turnOf(artifact));
    await Promise.all(Array.from({ length: 8 }, () => store.load("a", "c")));
    for (let time = 0; time < 3; time++) {
      await pool.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and state = 'idle'",
      );
      expect(await store.load("a", "c")).toMatchObject({ tip: { id: artifact.id } });
    }
    await store.close();
    await own.end();
  });

  test.skipIf(GIVEN)(
    "a database that is gone in the middle of a turn costs the record, and works again when it is back",
    async () => {
      const gone = await startDatabase();
      const own = poolOf(gone, 4);
      const model: Model = await tinyModel();
      try {
        await PostgresStore.migrate(own);
        const store = new PostgresStore({ pool: own });
        // Another process, that has nothing at hand.
        const seam = () => new Seam({ model, store, ...BARE, storeTimeoutMs: 5_000, cacheBytes: 0 });
        const options = { now: NOW, tenant: "a", conversation: "c" };
        const first = await seam().prepare({ messages: [user("One?")] }, options);
        expect(await first.commit({ message: assistant("ok") })).toEqual({ status: "committed" });

        const second = await seam().prepare({ append: [user("Two?")] }, options);
        await gone.stop();
        expect(await second.commit({ message: assistant("ok") })).toEqual({ status: "not_durable" });
        await expect(store.load("a", "c")).rejects.toMatchObject({
          code: "PS_STORE",
          cause: expect.any(Error),
        });
        await expect(seam().prepare({ append: [user("Three?")] }, options)).rejects.toMatchObject({
          code: "PS_STORE",
        });
        const messages = [user("One?"), assistant("ok"), user("Two?")];
        const whole = await seam().prepare({ messages }, options);
        expect(whole.outcome).toEqual({ kind: "full_render", reason: "store_unavailable" });

        await gone.start();
        const again = await seam().prepare({ append: [user("Two?")] }, options);
        expect(again.outcome).toEqual({ kind: "certified_suffix" });
        expect(await again.commit({ message: assistant("ok") })).toEqual({ status: "committed" });
        expect(await store.load("a", "c")).toMatchObject({ version: 2 });
        await store.close();
      } finally {
        model.close();
        await own.end();
        await gone.close();
      }
    },
  );
});

test("a conversation goes on in another process, tool rounds and all", async () => {
  const model = await tinyModel();
  const store = await migrated({ key: randomBytes(32) });
  const other = () => new Seam({ model, store, ...BARE, storeTimeoutMs: 5_000 });
  const options = { now: NOW, tenant: "a", conversation: "c" };
  const ask = async (append: ReturnType<typeof user>[], answer: ReturnType<typeof assistant>) => {
    const turn = await other().prepare({ append }, options);
    expect(turn.outcome).toEqual({ kind: "certified_suffix" });
    expect(await turn.commit({ message: answer })).toEqual({ status: "committed" });
  };
  const first = await other().prepare({ messages: [user("One?")] }, options);
  await first.commit({ message: assistant("ok") });
  await ask([user("Two?")], called("call00001"));
  await ask([result("call00001")], assistant("42"));
  await ask([user("Three?")], assistant("ok"));
  expect(await store.list("a")).toMatchObject([{ conversation: "c", version: 4, messages: 7 }]);
  await store.close();
  model.close();
});

describe("retention", () => {
  test("the least recently used leave first, as whole conversations", async () => {
    const first = await migrated();
    const noise = () => randomBytes(3_000).toString("hex");
    for (const name of ["a", "b", "c", "d"]) {
      const chain = await artifacts.chain([`${name} ${noise()}`, "Two?"]);
      for (const [version, artifact] of chain.entries()) {
        await first.commit(turnOf(artifact, { conversation: name, version }));
      }
    }
    await first.close();
    const store = new PostgresStore({ pool, schema, maxBytes: 20_000 });
    // Looked at long after the others were made.
    await pool.query(`update "${schema}".families set used = used - 3600000`);
    await store.load("a", "b");
    const { bytes } = await store.stats();
    expect(bytes).toBeGreaterThan(20_000);
    const removed = await store.expire();
    expect(removed).toBeGreaterThanOrEqual(2);
    expect(removed % 2).toBe(0);
    expect((await store.stats()).bytes).toBeLessThanOrEqual(20_000);
    expect((await store.load("a", "b"))?.tip).toBeDefined();
    expect((await store.load("a", "a"))?.tip).toBeUndefined();
    expect(await store.expire()).toBe(0);
    await expectSound();
    await store.close();
  });

  test("what is written at that moment is left for the next time", async () => {
    const first = await migrated();
    await first.commit(turnOf(await artifacts.one("One?")));
    // Its own sweep is over then.
    await first.close();
    const store = new PostgresStore({ pool, schema });
    await pool.query(`update "${schema}".families set expires = 0`);
    const holder = await pool.connect();
    await holder.query(`begin; select from "${schema}".families for no key update`);
    expect(await store.expire()).toBe(0);
    await holder.query("rollback");
    holder.release();
    expect(await store.expire()).toBe(1);
    await store.close();
  });

  test("hundreds of conversations leave in one call", async () => {
    const first = await migrated();
    await first.commit(turnOf(await artifacts.one("Kept?"), { conversation: undefined }));
    const made = await Promise.all(Array.from({ length: 640 }, (_, at) => artifacts.one(`Question ${at}?`)));
    const expires = Date.now() + 60_000;
    await Promise.all(
      made.map((artifact) => first.commit(turnOf(artifact, { conversation: undefined, expires }))),
    );
    await first.close();
    const store = new PostgresStore({ pool, schema });
    await pool.query(`update "${schema}".families set expires = 1 where expires < 'infinity'`);
    expect(await store.expire()).toBe(640);
    expect(await store.stats()).toMatchObject({ artifacts: 1, evictions: 640 });
    await store.close();
  });

  test("use is written down once a minute, and a clock that jumps back breaks nothing", async () => {
    const store = await migrated();
    const [first, second] = (await artifacts.chain(["One?", "Two?"])) as [Artifact, Artifact];
    await store.commit(turnOf(first));
    const used = () => value(`select used from "${schema}".families`);
    const made = await used();
    await store.load("a", "c");
    await store.find("a", [first.digest]);
    expect(await used()).toBe(made);
    await pool.query(`update "${schema}".families set used = used - 61000`);
    await store.load("a", "c");
    expect(Number(await used())).toBeGreaterThanOrEqual(Number(made));
    const DAY = 86_400_000;
    await pool.query(`update "${schema}".families set used = used + ${DAY};
      update "${schema}".conversations set updated = updated + ${DAY}`);
    const ahead = await used();
    await store.load("a", "c");
    expect(await store.commit(turnOf(second, { version: 1 }))).toBe("committed");
    expect(await used()).toBe(ahead);
    expect((await store.list("a"))[0]?.updated).toBeGreaterThan(Date.now() + DAY / 2);
    expect(await store.expire()).toBe(0);
    await store.close();
  });

  test.each([0, -1, Number.NaN])("%d bytes are none", (maxBytes) => {
    expect(() => new PostgresStore({ pool, maxBytes })).toThrow(
      expect.objectContaining({ code: "PS_INVALID_ARGUMENT" }),
    );
  });
});

describe("encryption", () => {
  const held = `select string_agg(encode(record, 'escape') || encode(digest, 'hex'), '')`;

  test("hides what was said, and which histories are the same", async () => {
    const key = randomBytes(32);
    const store = await migrated({ key });
    const artifact = await artifacts.one("Plainly?");
    const theirs = await artifacts.one("Plainly?", { tenant: "b" });
    await store.commit(turnOf(artifact));
    await store.commit(turnOf(theirs, { tenant: "b" }));
    const salt = await store.salt("a", "engines");
    const kept = await value(`${held} from "${schema}".artifacts`);
    expect(kept).not.toContain("Plainly");
    expect(kept).not.toContain(artifact.digest);
    expect(await value(`select count(distinct digest) from "${schema}".artifacts`)).toBe("2");
    expect(await value(`select encode(salt, 'escape') from "${schema}".salts`)).not.toContain(salt);
    expect(Buffer.from(await artifact.record()).toString("latin1")).toContain("Plainly");
    expect((await store.find("a", [artifact.digest]))?.id).toBe(artifact.id);
    await store.close();
  });

  test("with another key is refused and counted, and so is a record that was moved to another tenant", async () => {
    const key = randomBytes(32);
    const store = await migrated({ key });
    await store.commit(turnOf(await artifacts.one("One?")));
    const other = new PostgresStore({ pool, schema, key: randomBytes(32) });
    await expect(other.load("a", "c")).rejects.toMatchObject({ code: "PS_RECORD_REFUSED" });
    expect(await other.stats()).toMatchObject({ refused: 1, hits: 0 });
    await pool.query(`update "${schema}".tenants set name = 'b'`);
    await expect(store.load("b", "c")).rejects.toMatchObject({ code: "PS_RECORD_REFUSED" });
    await other.close();
    await store.close();
  });

  test("takes a key of 32 bytes", () => {
    for (const length of [0, 16, 31, 33]) {
      expect(() => new PostgresStore({ pool, key: randomBytes(length) })).toThrow(
        expect.objectContaining({ code: "PS_INVALID_ARGUMENT" }),
      );
    }
  });
});
