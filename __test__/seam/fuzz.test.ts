/** A short run of `npm run fuzz:continuation`, on the sources. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { fuzz, type Mismatch } from "../../fuzz/continuation/fuzz.mjs";
import { MemoryStore, Model, Seam, SqliteStore } from "../../ts/index.ts";
import { type Family, modelFolder } from "../support.ts";

const FAMILIES: readonly Family[] = ["qwen3", "llama3", "deepseek", "mistral", "gpt-oss"];
const SECONDS = 8;

const models = new Map<Family, Model>();
beforeAll(async () => {
  for (const family of FAMILIES)
    models.set(family, await Model.load(modelFolder(family), { maxModelLength: 6_000 }));
});
afterAll(() => {
  for (const model of models.values()) model.close();
});

test("every prompt of random conversations is the full render of its request", async () => {
  let wrong: Mismatch | undefined;
  const counts = await fuzz({ Seam, MemoryStore, SqliteStore }, models, {
    seed: "test",
    until: performance.now() + 1_000 * SECONDS,
    sessions: 400,
    onMismatch: (mismatch) => {
      wrong = mismatch;
      return false;
    },
  });
  expect(wrong).toBeUndefined();
  expect(counts.transitions).toBeGreaterThan(100);
});
