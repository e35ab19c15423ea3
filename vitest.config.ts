import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["__test__/**/*.test.ts"],
    exclude: ["__test__/real/**"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
