// The shortest list of steps that is still wrong.

import { Mismatch } from "./oracle.mjs";
import { World } from "./world.mjs";

/** How long to go on looking. */
const LONGEST_MS = 20_000;

/** What is wrong with `steps` in a world of their own; nothing where they are all right. */
export async function replay(kit, steps) {
  const world = new World(kit.fresh());
  try {
    for (const step of steps) await world.run(step);
  } catch (error) {
    if (error instanceof Mismatch) return error;
    throw error;
  }
  return undefined;
}

/** Leaves out every step that makes no difference. Null where the steps alone are not wrong. */
export async function shrink(kit, steps) {
  const until = performance.now() + LONGEST_MS;
  let mismatch = await replay(kit, steps);
  if (mismatch === undefined) return null;
  let least = steps;
  for (let before = Number.POSITIVE_INFINITY; least.length < before; ) {
    before = least.length;
    for (let at = least.length - 2; at >= 0 && performance.now() < until; at--) {
      const fewer = least.toSpliced(at, 1);
      const still = await replay(kit, fewer).catch(() => undefined);
      if (still === undefined) continue;
      least = fewer;
      mismatch = still;
    }
  }
  return { steps: least, mismatch };
}
