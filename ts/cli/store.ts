/** `promptseam store`: looks into a store, checks it and keeps it small. */

import { existsSync, readFileSync } from "node:fs";
import { PromptseamError } from "../errors.ts";
import type { PostgresPool } from "../store/postgres/index.ts";
import { SqliteStore } from "../store/sqlite.ts";
import type { Store } from "../store/store.ts";
import { type Given, readOptions, UsageError, wholeNumber } from "./usage.ts";

const HELP = `Usage: promptseam store <command> (--db FILE | --postgres URL) [options]

Commands:
  stats      what it holds
  list       conversations of a tenant, in the order of their ids
  show       one conversation
  verify     look at every page and every record (SQLite); exit code 1 where something is damaged
  gc         remove what has expired, and what is over --max-bytes
  migrate    make its tables, or bring them up to date

Options:
  --db FILE              a SQLite store
  --postgres URL         a PostgreSQL store (needs the package pg)
  --schema NAME          its schema (default: promptseam)
  --key-file FILE        the key it is encrypted with: 32 bytes, or 64 hexadecimal digits
  --tenant NAME          whose conversations (default: the one without a name)
  --conversation ID      for show
  --project NAME         for list: only those of this project
  --after ID             for list: only those behind this one
  --limit N              for list: at most so many, up to 1000 (default: 100)
  --max-bytes N          for gc: the least recently used conversations over so many bytes leave (default: no bound)
  --json                 one JSON object, for list one a line
  --help                 show this
`;

const TEXTS = [
  "db",
  "postgres",
  "schema",
  "key-file",
  "tenant",
  "conversation",
  "project",
  "after",
  "limit",
  "max-bytes",
] as const;

/** What a command says: figures by name, and its exit code. */
interface Said {
  readonly rows: readonly Readonly<Record<string, unknown>>[];
  readonly code?: number;
}

const COMMANDS: Readonly<Record<string, (given: Given) => Promise<Said>>> = {
  stats: (given) =>
    using(given, { readOnly: true }, async (store) => {
      const tenants = store instanceof SqliteStore ? { tenants: (await store.tenants()).length } : {};
      const {
        hits: _hits,
        misses: _misses,
        evictions: _evictions,
        refused: _refused,
        ...held
      } = await store.stats();
      return { rows: [{ ...tenants, ...held }] };
    }),
  list: (given) =>
    using(given, { readOnly: true }, async (store) => {
      const [project, after, limit] = [given.text("project"), given.text("after"), given.text("limit")];
      const rows = await store.list(given.text("tenant") ?? "", {
        ...(project === undefined ? {} : { project }),
        ...(after === undefined ? {} : { after }),
        ...(limit === undefined ? {} : { limit: wholeNumber(limit, "limit", 1, 1_000) }),
      });
      return { rows: rows.map(told) };
    }),
  show: (given) =>
    using(given, { readOnly: true }, async (store) => {
      const conversation = given.text("conversation");
      if (conversation === undefined) throw new UsageError("show takes --conversation ID.");
      const tenant = given.text("tenant") ?? "";
      const checkpoint = await store.load(tenant, conversation);
      if (checkpoint === undefined)
        throw new PromptseamError("PS_CONVERSATION_UNKNOWN", "The store does not know this conversation.");
      const { version, tip } = checkpoint;
      const content = tip?.content;
      return {
        rows: [
          {
            conversation,
            version,
            artifact: tip?.id ?? null,
            expires: tip === undefined ? null : dateOf(tip.expires),
            recordBytes: content instanceof Uint8Array ? content.length : null,
          },
        ],
      };
    }),
  verify: (given) =>
    using(given, { readOnly: true }, async (store) => {
      if (!(store instanceof SqliteStore))
        throw new UsageError(
          "verify is for SQLite; PostgreSQL has amcheck, and records are checked when they are read.",
        );
      const { file, ...found } = await store.verify();
      const sound = found.damaged === 0 && found.orphans === 0 && file.length === 0;
      return { rows: [{ sound, ...found, file: file.join("; ") }], code: sound ? 0 : 1 };
    }),
  gc: (given) =>
    using(given, { readOnly: false }, async (store) => ({ rows: [{ removed: await store.expire() }] })),
  migrate: (given) => {
    const url = given.text("postgres");
    if (url === undefined)
      return using(given, { readOnly: false }, async () => ({ rows: [{ migrated: true }] }));
    return withPool(url, async (pool) => {
      const { PostgresStore } = await import("../store/postgres/index.ts");
      const schema = given.text("schema");
      await PostgresStore.migrate(pool, schema === undefined ? {} : { schema });
      return { rows: [{ migrated: true }] };
    });
  },
};

/** `promptseam store`. */
export async function store(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name.startsWith("-")) {
    const wanted = readOptions(args, TEXTS, ["json", "help"]).flag("help");
    (wanted ? process.stdout : process.stderr).write(HELP);
    return wanted ? 0 : 2;
  }
  const command = COMMANDS[name];
  if (command === undefined)
    throw new UsageError(`There is no command store ${name}. Try: promptseam store --help`);
  const given = readOptions(rest, TEXTS, ["json", "help"]);
  if (given.flag("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  const { rows, code } = await command(given);
  process.stdout.write(given.flag("json") ? lines(rows) : table(rows));
  return code ?? 0;
}

async function using(
  given: Given,
  { readOnly }: { readonly readOnly: boolean },
  work: (store: Store) => Promise<Said>,
): Promise<Said> {
  const [db, url] = [given.text("db"), given.text("postgres")];
  if ((db === undefined) === (url === undefined))
    throw new UsageError("Give either --db FILE or --postgres URL.");
  const bytes = given.text("max-bytes");
  const settings = {
    ...keyOf(given.text("key-file")),
    maxBytes:
      bytes === undefined ? Number.POSITIVE_INFINITY : wholeNumber(bytes, "max-bytes", 1, 2 ** 53 - 1),
  };
  if (db !== undefined) {
    if (readOnly && !existsSync(db)) throw new PromptseamError("PS_STORE", `There is no file ${db}.`);
    await using opened = await SqliteStore.open(db, { ...settings, readOnly });
    return await work(opened);
  }
  return withPool(url as string, async (pool) => {
    const { PostgresStore } = await import("../store/postgres/index.ts");
    const schema = given.text("schema");
    return work(new PostgresStore({ pool, ...settings, ...(schema === undefined ? {} : { schema }) }));
  });
}

/** Runs `work` with a pool of PostgreSQL's client, which is not among this package's own. */
async function withPool(url: string, work: (pool: Pool) => Promise<Said>): Promise<Said> {
  const name = "pg";
  let pg: { default: { Pool: new (options: object) => Pool } };
  try {
    pg = await import(name);
  } catch (cause) {
    throw new PromptseamError("PS_STORE", "The package pg is missing. Install it: npm install pg", { cause });
  }
  const pool = new pg.default.Pool({ connectionString: url, max: 1 });
  // A connection that breaks while nobody uses it is the next call's trouble.
  pool.on("error", () => {});
  try {
    return await work(pool);
  } finally {
    await pool.end();
  }
}

interface Pool extends PostgresPool {
  end(): Promise<void>;
}

function keyOf(file: string | undefined): { key?: Uint8Array } {
  if (file === undefined) return {};
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch {
    throw new UsageError(`The key file ${file} cannot be read.`);
  }
  const text = bytes.toString("latin1").trim();
  return { key: /^[0-9a-f]{64}$/i.test(text) ? Buffer.from(text, "hex") : bytes };
}

function dateOf(millis: number): string | null {
  return Number.isFinite(millis) ? new Date(millis).toISOString() : null;
}

function told({ updated, ...row }: { readonly updated: number }): Record<string, unknown> {
  return { ...row, updated: dateOf(updated) };
}

function lines(rows: Said["rows"]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join("");
}

/** One row as names and values, several as a table. */
function table(rows: Said["rows"]): string {
  const [first] = rows;
  if (first === undefined) return "nothing\n";
  const text = (value: unknown) =>
    typeof value === "number" ? value.toLocaleString("en-US") : value === null ? "-" : String(value);
  if (rows.length === 1)
    return Object.entries(first)
      .map(([name, value]) => `${name.padEnd(14)}${text(value)}\n`)
      .join("");
  const names = Object.keys(first);
  const cells = [names, ...rows.map((row) => names.map((name) => text(row[name])))];
  const widths = names.map((_, at) => Math.max(...cells.map((row) => row[at]?.length ?? 0)));
  return cells
    .map(
      (row) =>
        `${row
          .map((cell, at) => cell.padEnd(widths[at] ?? 0))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}
