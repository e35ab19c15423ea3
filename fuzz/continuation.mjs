// `npm run fuzz:continuation`: random conversations through Seams, every prompt compared with the full render of its request.

import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { Tally } from "./continuation/fuzz.mjs";
import { FAMILIES, whyMissing } from "./continuation/models.mjs";

const USAGE = `Random conversations through Seams: every prompt must be the full render of its request, id for id.

  npm run fuzz:continuation -- [--seconds N] [--seed S] [--family F]... [--session I]

  --seconds N   how long (default 30)
  --seed S      what all choices are made from (default 1)
  --family F    only this family: ${FAMILIES.join(", ")} (default all)
  --session I   only this session of the seed, to see a mismatch again; with one --family

Runs on what \`npm run build:ts\` built. Exits 1 at the first mismatch, after telling the fewest steps that lead to it.
`;

const PROGRESS_MS = 5_000;

class UsageError extends Error {}

function read() {
  const text = { type: "string" };
  const options = {
    seconds: text,
    seed: text,
    family: { ...text, multiple: true },
    session: text,
    help: { type: "boolean" },
  };
  let values;
  try {
    ({ values } = parseArgs({ options }));
  } catch (error) {
    throw new UsageError(error.message);
  }
  const { help = false, seed = "1", family } = values;
  const seconds = Number(values.seconds ?? 30);
  const session = values.session === undefined ? undefined : Number(values.session);
  if (!(seconds > 0)) throw new UsageError("--seconds must be a number above 0");
  if (session !== undefined && !Number.isSafeInteger(session))
    throw new UsageError("--session must be a whole number");
  if (session !== undefined && family?.length !== 1) throw new UsageError("--session needs its --family");
  for (const name of family ?? []) {
    if (!FAMILIES.includes(name)) throw new UsageError(`there is no family ${name}: ${FAMILIES.join(", ")}`);
  }
  return { help, seed, seconds, session, families: family ?? FAMILIES };
}

/** What each thread plays: its families, and which of the seed's sessions. */
function shares({ families, session }) {
  if (session !== undefined) return [{ families, first: session, step: 1, sessions: 1 }];
  const threads = availableParallelism();
  return Array.from({ length: threads }, (_, thread) => ({
    families: families.filter((_, at) => at % threads === thread % families.length),
    first: thread,
    step: threads,
  }));
}

/** Runs a thread to its end; `onReport` is given what it counts as it goes. */
function run(workerData, onReport, threads) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("continuation/worker.mjs", import.meta.url), { workerData });
    threads.push(worker);
    worker.on("message", onReport);
    worker.on("error", reject);
    worker.on("exit", resolve);
  });
}

async function main() {
  const { help, ...chosen } = read();
  if (help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const families = chosen.families.filter((family) => {
    const why = whyMissing(family);
    if (why !== undefined) process.stderr.write(`${why}\n`);
    return why === undefined;
  });
  if (families.length === 0) return 1;

  const started = performance.now();
  const endsAt = Date.now() + 1_000 * chosen.seconds;
  const threads = [];
  const counts = [];
  let failed;
  const total = () => counts.reduce((tally, data) => tally.add(data), new Tally());
  const progress = setInterval(() => {
    const { transitions } = total();
    const seconds = (performance.now() - started) / 1_000;
    process.stderr.write(
      `${seconds.toFixed(0)} s: ${transitions} transitions, ${(transitions / seconds).toFixed(0)}/s\n`,
    );
  }, PROGRESS_MS);
  const runs = shares({ ...chosen, families }).map((share, at) =>
    run(
      { seed: chosen.seed, endsAt, ...share },
      ({ tally, mismatch }) => {
        counts[at] = tally;
        failed ??= mismatch;
        if (failed !== undefined) for (const thread of threads) void thread.terminate();
      },
      threads,
    ),
  );
  await Promise.all(runs).finally(() => clearInterval(progress));

  const tally = total();
  process.stdout.write(`${tally.table()}\n\n`);
  if (failed !== undefined) tell(failed);
  process.stdout.write(`${tally.transitions} transitions, ${tally.mismatches} mismatches\n`);
  return failed === undefined ? 0 : 1;
}

function tell({ seed, family, number, steps, alone, wrong, ...details }) {
  const say = (line) => process.stdout.write(`${line}\n`);
  say(`MISMATCH: ${wrong}`);
  say(`  again with: --seed ${seed} --family ${family} --session ${number}`);
  say(alone ? "  the fewest steps that show it:" : "  all its steps, which alone do not show it:");
  for (const step of steps) say(`    ${JSON.stringify(step)}`);
  for (const [name, value] of Object.entries(details))
    if (value !== null) say(`  ${name}: ${JSON.stringify(value)}`);
  say("");
}

process.exitCode = await main().catch((error) => {
  const missing = error.code === "ERR_MODULE_NOT_FOUND";
  if (!(error instanceof UsageError) && !missing) throw error;
  process.stderr.write(
    missing ? "Nothing is built yet: run `npm run build:ts`.\n" : `${error.message}; see --help\n`,
  );
  return 1;
});
