// Plays sessions on one model until the time is up or something is wrong.

import { Kit } from "./kit.mjs";
import { Mismatch } from "./oracle.mjs";
import { Random } from "./random.mjs";
import { Session } from "./session.mjs";
import { shrink } from "./shrink.mjs";
import { Tally } from "./tally.mjs";
import { World } from "./world.mjs";

export { Tally };

/** Sessions in a row on one family. */
const IN_A_ROW = 20;
/** What store the sessions of ten numbers in a row have. */
const STORES_IN_TURN = ["plenty", "sqlite", "plenty", "later", "plenty", "small"];

/**
 * @param api `Seam`, `MemoryStore` and `SqliteStore`
 * @param {ReadonlyMap<string, object>} models by family
 * @param options.seed what all choices are made from
 * @param options.until by `performance.now()`
 * @param options.first number of the first session, and `step` to the next one: threads share the sessions of a seed
 * @param options.sessions how many at most
 * @param options.onMismatch told what was wrong; the run ends unless it gives true
 */
export async function fuzz(
  api,
  models,
  { seed, until, first = 0, step = 1, sessions = Infinity, onProgress, onMismatch },
) {
  const tally = new Tally();
  const kits = new Map();
  const kitOf = (family, number) => {
    const stored = STORES_IN_TURN[Math.floor(number / 10) % STORES_IN_TURN.length];
    const name = `${family} ${stored}`;
    if (!kits.has(name)) kits.set(name, new Kit(api, family, models.get(family), stored));
    return kits.get(name);
  };
  const families = [...models.keys()];
  let played = 0;
  for (let number = first; played < sessions && performance.now() < until; number += step, played++) {
    const family = families[Math.floor(played / IN_A_ROW) % families.length];
    const failed = await play(kitOf(family, number), { seed, family, number, tally });
    onProgress?.(tally);
    if (failed === undefined) continue;
    tally.mismatches++;
    if (!(await onMismatch?.(failed))) break;
  }
  return tally;
}

/** Plays one session. Gives what was wrong, as few steps as show it. */
export async function play(kit, { seed, family, number, tally }) {
  const world = new World(kit);
  const random = new Random(`${seed} ${family} ${number}`);
  const onTurn = (came, first) => tally.turn(family, came, first);
  try {
    await new Session(random, world, family, `s${number}`, onTurn).run();
    tally.sessions++;
    return undefined;
  } catch (error) {
    if (!(error instanceof Mismatch)) throw error;
    const shrunk = await shrink(kit, world.steps);
    return told({
      seed,
      family,
      number,
      alone: shrunk !== null,
      ...(shrunk ?? { steps: world.steps, mismatch: error }),
    });
  }
}

/** A mismatch as plain data. */
function told({ mismatch, ...about }) {
  const { turn, error, full, wanted, model } = mismatch.details;
  const show = (prompt) => (prompt == null ? null : model.decode(prompt));
  return {
    ...about,
    wrong: mismatch.message,
    outcome: turn?.outcome ?? null,
    ...(turn?.sampledSpans?.length > 0 ? { spans: turn.sampledSpans } : {}),
    error: error === undefined ? null : `${error.code}: ${error.message}`,
    refusal: wanted === undefined ? null : `${wanted.code}: ${wanted.message}`,
    planned: show(turn?.prompt),
    right: show(full),
  };
}
