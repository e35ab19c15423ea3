import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startDatabase } from "../../scripts/postgres.mjs";
import { type Model, Seam, SqliteStore, type Store } from "../../ts/index.ts";
import { PostgresStore } from "../../ts/store/postgres/index.ts";
import { tinyModel } from "../../ts/testing/tiny-model.ts";

const BIN = fileURLToPath(new URL("../../bin/promptseam.mjs", import.meta.url));

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(...args: string[]): Promise<Run> {
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [BIN, "store", ...args]);
    return { code: 0, stdout, stderr };
  } catch (error) {
    return error as Run;
  }
}

const json = ({ stdout }: Run) =>
  stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

let model: Model;
let folder: string;
let file: string;

async function fill(store: Store): Promise<void> {
  const seam = new Seam({ model, store, cacheDomain: false });
  for (const conversation of ["a", "b", "c"]) {
    for (const content of ["Hello", "And then?"]) {
      const request =
        content === "Hello"
          ? { messages: [{ role: "user", content }] }
          : { append: [{ role: "user", content }] };
      const turn = await seam.prepare(request, {
        conversation,
        tenant: "acme",
        project: conversation === "c" ? "x" : "y",
      });
      await turn.commit({ message: { role: "assistant", content: "Yes." } });
    }
  }
}

beforeAll(async () => {
  model = await tinyModel();
  folder = await mkdtemp(join(tmpdir(), "promptseam-cli-"));
  file = join(folder, "conversations.db");
  await using store = await SqliteStore.open(file);
  await fill(store);
});
afterAll(async () => {
  model.close();
  await rm(folder, { recursive: true, force: true });
});

describe("on SQLite", () => {
  test("stats, for people and for programs", async () => {
    const { code, stdout } = await run("stats", "--db", file);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^conversations +3$/m);
    const [told] = json(await run("stats", "--db", file, "--json"));
    expect(told).toMatchObject({ tenants: 1, conversations: 3, artifacts: 6 });
  });

  test("list, page by page and by project", async () => {
    const all = json(await run("list", "--db", file, "--tenant", "acme", "--json"));
    expect(all.map(({ conversation, version, messages }) => [conversation, version, messages])).toEqual([
      ["a", 2, 3],
      ["b", 2, 3],
      ["c", 2, 3],
    ]);
    const page = json(
      await run("list", "--db", file, "--tenant", "acme", "--after", "a", "--limit", "1", "--json"),
    );
    expect(page.map(({ conversation }) => conversation)).toEqual(["b"]);
    const project = json(await run("list", "--db", file, "--tenant", "acme", "--project", "x", "--json"));
    expect(project.map(({ conversation }) => conversation)).toEqual(["c"]);
    expect((await run("list", "--db", file)).stdout).toBe("nothing\n");
    expect((await run("list", "--db", file, "--tenant", "acme")).stdout.split("\n")).toHaveLength(5);
  });

  test("show", async () => {
    const [told] = json(await run("show", "--db", file, "--tenant", "acme", "--conversation", "a", "--json"));
    expect(told).toMatchObject({ conversation: "a", version: 2, expires: null });
    expect(told?.["artifact"]).toMatch(/^[0-9a-f]{64}$/);
    const unknown = await run("show", "--db", file, "--conversation", "a");
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining("PS_CONVERSATION_UNKNOWN") });
  });

  test("verify tells a sound file from a damaged one by its exit code", async () => {
    expect(json(await run("verify", "--db", file, "--json"))).toEqual([
      { sound: true, artifacts: 6, damaged: 0, orphans: 0, file: "" },
    ]);
    const copy = join(folder, "damaged.db");
    const bytes = await readFile(file);
    const at = bytes.indexOf("PS\u0001") + 40;
    bytes[at] = (bytes[at] as number) ^ 1;
    await writeFile(copy, bytes);
    const damaged = await run("verify", "--db", copy, "--json");
    expect(damaged.code).toBe(1);
    expect(json(damaged)[0]).toMatchObject({ sound: false, damaged: 1 });
  });

  test("migrate makes a file, and gc removes what is over the bound", async () => {
    const other = join(folder, "new", "other.db");
    expect(await run("migrate", "--db", other)).toMatchObject({ code: 0 });
    await (async () => {
      await using store = await SqliteStore.open(other);
      await fill(store);
    })();
    expect(json(await run("gc", "--db", other, "--json"))).toEqual([{ removed: 0 }]);
    expect(json(await run("gc", "--db", other, "--max-bytes", "1", "--json"))).toEqual([{ removed: 6 }]);
  });

  test("a key in a file, as bytes or as digits", async () => {
    const key = randomBytes(32);
    const sealed = join(folder, "sealed.db");
    await (async () => {
      await using store = await SqliteStore.open(sealed, { key });
      await fill(store);
    })();
    await writeFile(join(folder, "bytes"), key);
    await writeFile(join(folder, "digits"), `${key.toString("hex")}\n`);
    for (const name of ["bytes", "digits"]) {
      const told = await run("verify", "--db", sealed, "--key-file", join(folder, name), "--json");
      expect(json(told)[0]).toMatchObject({ sound: true });
    }
    expect((await run("verify", "--db", sealed)).code).toBe(1);
  });

  test("mistakes are told from failures", async () => {
    expect(await run()).toMatchObject({ code: 2 });
    expect(await run("--help")).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("promptseam store"),
    });
    expect(await run("stats")).toMatchObject({ code: 2, stderr: expect.stringContaining("--db") });
    expect(await run("burn", "--db", file)).toMatchObject({ code: 2 });
    expect(await run("stats", "--db", file, "--postgres", "x")).toMatchObject({ code: 2 });
    expect(await run("list", "--db", file, "--limit", "x")).toMatchObject({ code: 2 });
    expect(await run("stats", "--db", join(folder, "none.db"))).toMatchObject({ code: 1 });
  });
});

test("on PostgreSQL", async () => {
  const database = await startDatabase();
  const pool = new pg.Pool(database.connection);
  try {
    const { host, user, connectionString } = database.connection;
    const url = connectionString ?? `postgres://${user}@/postgres?host=${encodeURIComponent(String(host))}`;
    const schema = `cli_${process.pid}`;
    const on = ["--postgres", url, "--schema", schema];
    expect(await run("stats", ...on)).toMatchObject({ code: 1, stderr: expect.stringContaining("PS_STORE") });
    expect(await run("migrate", ...on)).toMatchObject({ code: 0 });
    await fill(new PostgresStore({ pool, schema }));
    expect(json(await run("stats", ...on, "--json"))[0]).toMatchObject({ conversations: 3, artifacts: 6 });
    expect(json(await run("list", ...on, "--tenant", "acme", "--json"))).toHaveLength(3);
    expect(json(await run("gc", ...on, "--json"))).toEqual([{ removed: 0 }]);
    await pool.query(`drop schema "${schema}" cascade`);
  } finally {
    await pool.end();
    await database.close();
  }
});
