import { defineConfig } from "vitest/config";

/** The tests that need a real vLLM; scripts/test-vllm.mjs starts one and runs them. */
export default defineConfig({
  test: {
    include: ["__test__/real/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // One engine, whose running requests the tests count.
    fileParallelism: false,
  },
});
