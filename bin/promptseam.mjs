#!/usr/bin/env node
// The command. In a clone it first builds what is missing; in an installed package everything is there.

import { existsSync } from "node:fs";

const setupScript = new URL("../scripts/setup.mjs", import.meta.url);
let ready = true;
if (existsSync(setupScript)) {
  const { setup, SetupError } = await import(setupScript.href);
  await setup().catch((error) => {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`promptseam: ${error.message}\n`);
    process.exitCode = 1;
    ready = false;
  });
}
if (ready) {
  const { main } = await import("../dist/cli/main.js");
  process.exitCode = await main(process.argv.slice(2));
}
