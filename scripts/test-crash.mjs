// `npm run test:crash`: kills a process with SIGKILL at random points of its turns, again and again, and looks at what a new one
// finds: every turn whose end was seen, none half, and the next one continued as if nothing had happened.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { TENANT } from "./crash/tenant.mjs";
import { run } from "./results.mjs";
import { ROOT, SetupError, setup } from "./setup.mjs";

const HELP = `npm run test:crash [-- options]

  --store NAME    sqlite or postgres; may be repeated. Default: both
  --turns N       turns on each store. Default: 300 on sqlite, 100 on postgres
  --help
`;
const TURNS = { sqlite: 300, postgres: 100 };
/** A turn takes a few of these. */
const LATEST_KILL_MS = 6;

const { values } = parseArgs({
  options: {
    store: { type: "string", multiple: true, default: ["sqlite", "postgres"] },
    turns: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

/** How every turn is planned where nobody is killed. */
async function uninterrupted(turns) {
  const [{ MemoryStore }, { CONVERSATIONS, Player }] = await Promise.all([
    import("../dist/index.js"),
    import("./crash/session.mjs"),
  ]);
  const player = await Player.on(new MemoryStore());
  const outcomes = [];
  for (let conversation = 0; conversation < CONVERSATIONS; conversation++) {
    outcomes.push([]);
    for (let turn = 0; turn < turns; turn++) {
      const { right, outcome, commit } = await player.plan(conversation, turn);
      if (!right) throw new Error("a prompt is not the full render, and nobody was killed");
      outcomes[conversation].push(outcome);
      await commit();
    }
  }
  player.model.close();
  return outcomes;
}

/** What was seen of all processes so far. */
class Seen {
  kills = 0;
  turns = 0;
  /** Turns that were begun, but whose end nobody saw: there or not, as it happened. */
  cut = 0;
  cutButThere = 0;
  outcomes = {};
  problems = [];
  ended = [];
  begun = null;

  /** `versions`: turns that a new process found, of each conversation. */
  found(versions) {
    for (const [conversation, version] of versions.entries()) {
      const ended = this.ended[conversation] ?? 0;
      const open = this.begun?.conversation === conversation ? 1 : 0;
      if (version < ended)
        this.problems.push(`conversation ${conversation}: ${ended - version} turns are lost`);
      if (version > ended + open) this.problems.push(`conversation ${conversation}: a turn too many`);
      if (open === 1) {
        this.cut++;
        this.cutButThere += version - ended;
      }
      this.ended[conversation] = version;
    }
    this.begun = null;
  }

  planned({ planned: conversation, turn, right, outcome }, expected) {
    this.begun = { conversation };
    this.outcomes[outcome] = (this.outcomes[outcome] ?? 0) + 1;
    if (!right) this.problems.push(`conversation ${conversation}, turn ${turn}: not the full render's ids`);
    const usual = expected[conversation][turn];
    if (outcome !== usual)
      this.problems.push(`conversation ${conversation}, turn ${turn}: ${outcome}, not ${usual}`);
  }

  finished({ ended: conversation, status }) {
    if (status !== "committed") this.problems.push(`conversation ${conversation}: ${status}`);
    else this.ended[conversation] = (this.ended[conversation] ?? 0) + 1;
    this.begun = null;
    this.turns++;
  }
}

/** One process, from its start until it is killed. */
async function life(kind, location, seen, expected, most) {
  const worker = join(ROOT, "scripts/crash/worker.mjs");
  const child = spawn(process.execPath, [worker, kind, location, String(seen.kills)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exit = new Promise((resolve) => child.on("exit", (code, signal) => resolve({ code, signal })));
  let left = Math.min(most, 1 + Math.floor(Math.random() * 4));
  const kill = () => child.kill("SIGKILL");
  for await (const line of createInterface({ input: child.stdout })) {
    // The last line may be cut off.
    if (!line.endsWith("}")) continue;
    const message = JSON.parse(line);
    if (message.versions !== undefined) seen.found(message.versions);
    else if (message.planned !== undefined) seen.planned(message, expected);
    else seen.finished(message);
    if (message.planned !== undefined && --left === 0) setTimeout(kill, Math.random() * LATEST_KILL_MS);
  }
  const { code, signal } = await exit;
  if (signal !== "SIGKILL") seen.problems.push(`the process ended by itself: ${signal ?? code}`);
  seen.kills++;
}

async function crash(kind, turns, location) {
  const expected = await uninterrupted(Math.ceil(turns / 2));
  const seen = new Seen();
  while (seen.turns < turns && seen.problems.length === 0) {
    await life(kind, location, seen, expected, turns - seen.turns);
    process.stdout.write(`\r${kind}: ${seen.turns} of ${turns} turns, ${seen.kills} kills `);
  }
  process.stdout.write("\n");
  const [{ openStore }, { Player }] = await Promise.all([
    import("./crash/stores.mjs"),
    import("./crash/session.mjs"),
  ]);
  const store = await openStore(kind, location);
  const player = await Player.on(store);
  seen.found(await player.versions());
  for (const conversation of seen.ended.keys()) {
    const { right, outcome } = await player.plan(conversation, seen.ended[conversation]);
    seen.planned({ planned: conversation, turn: seen.ended[conversation], right, outcome }, expected);
    seen.begun = null;
  }
  if (typeof store.verify === "function") {
    const { damaged, orphans, file } = await store.verify();
    if (damaged + orphans + file.length > 0) seen.problems.push(`${damaged} damaged, ${orphans} orphans`);
  }
  player.model.close();
  await store.close();
  for (const [outcome, count] of Object.entries(seen.outcomes))
    process.stdout.write(`  ${outcome}: ${count}\n`);
  process.stdout.write(
    `  ${seen.cut} turns were cut off, ${seen.cutButThere} of them after they were recorded: none half there\n`,
  );
  for (const problem of seen.problems) process.stdout.write(`  PROBLEM: ${problem}\n`);
  return seen;
}

async function onSqlite(turns) {
  const folder = mkdtempSync(join(tmpdir(), "promptseam-crash-"));
  try {
    return await crash("sqlite", turns, join(folder, "conversations.db"));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function onPostgres(turns) {
  const [{ default: pg }, { startDatabase }, { PostgresStore }] = await Promise.all([
    import("pg"),
    import("./postgres.mjs"),
    import("../dist/store/postgres/index.js"),
  ]);
  const database = await startDatabase();
  const pool = new pg.Pool({ ...database.connection, max: 1 });
  try {
    // On a server of somebody's own, what was there before must not be found.
    await PostgresStore.migrate(pool);
    await new PostgresStore({ pool }).deleteTenant(TENANT);
    await pool.end();
    return await crash("postgres", turns, JSON.stringify(database.connection));
  } finally {
    await database.close();
  }
}

const ON = { sqlite: onSqlite, postgres: onPostgres };

run(async () => {
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  await setup();
  const results = [];
  for (const kind of values.store) {
    if (!(kind in ON)) throw new SetupError(`There is no store ${kind}.\n${HELP}`);
    const turns = Number(values.turns ?? TURNS[kind]);
    results.push([kind, await ON[kind](turns)]);
  }
  const problems = results.reduce((sum, [, seen]) => sum + seen.problems.length, 0);
  const told = results.map(([kind, seen]) => `${kind} ${seen.turns} turns, ${seen.kills} kills`);
  process.stdout.write(`${told.join("; ")}: ${problems} problems\n`);
  return problems === 0 ? 0 : 1;
});
