// `npm run test:vllm`: the tests that need a real vLLM, family by family, each on a server of its own.

import { parseArgs } from "node:util";
import { printTotal, run, vitest } from "./results.mjs";
import { SetupError, setup } from "./setup.mjs";
import { vllmTests } from "./test-python.mjs";
import { modelFolder, startVllm } from "./vllm-server.mjs";

const FAMILIES = ["qwen3", "llama3", "mistral", "deepseek", "gpt-oss"];
/** Without an engine here: only the render server runs them. */
const RENDER_ONLY = new Set(["deepseek", "gpt-oss"]);
const ENGINE_SUITES = ["parity", "ways", "faults", "seam", "records", "handle"];
/** They start servers of their own, of Qwen3. */
const OWN_SUITES = ["restart", "block-hashes"];
/** The plugin's own tests, which are Python's; they start Qwen3 too. */
const PLUGIN = "plugin";
const MAX_LENGTH = ["--max-model-len", "131072"];

const HELP = `npm run test:vllm [-- options]

  --family NAME      qwen3, llama3, mistral, deepseek or gpt-oss; may be repeated. Default: all
  --suite NAME       parity, ways, faults, seam, records, handle, or one with servers of its own: restart, block-hashes, plugin;
                     may be repeated. Default: all that the family can run
  --base-url URL     test this server instead of starting one; needs one --family
  --model FOLDER     the folder that the server at --base-url loaded its tokenizer and template from
  --help
`;

const { values } = parseArgs({
  options: {
    family: { type: "string", multiple: true },
    suite: { type: "string", multiple: true },
    "base-url": { type: "string" },
    model: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

/** Runs the suites that a server of this kind can answer. */
function runTests(family, baseUrl, model, suites) {
  return vitest(["-c", "vitest.vllm.config.ts", ...suites], {
    PROMPTSEAM_VLLM_FAMILY: family,
    PROMPTSEAM_VLLM_URL: baseUrl,
    PROMPTSEAM_VLLM_MODEL: model,
  });
}

const wanted = (suites) => suites.filter((suite) => values.suite?.includes(suite) ?? true);

async function testFamily(family) {
  const engine = !RENDER_ONLY.has(family);
  const suites = wanted(engine ? ENGINE_SUITES : ["parity"]);
  if (suites.length === 0) return { passed: 0, failed: 0 };
  const server = await startVllm(family, { engine, flags: MAX_LENGTH });
  try {
    return await runTests(family, server.baseUrl, modelFolder(family), suites);
  } finally {
    await server.stop();
  }
}

async function main() {
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const families = values.family ?? FAMILIES;
  const unknown = families.find((family) => !FAMILIES.includes(family));
  if (unknown !== undefined) throw new SetupError(`There is no family ${unknown}.\n${HELP}`);
  const suites = [...ENGINE_SUITES, ...OWN_SUITES, PLUGIN];
  const strange = values.suite?.find((suite) => !suites.includes(suite));
  if (strange !== undefined) throw new SetupError(`There is no suite ${strange}.\n${HELP}`);
  await setup();
  const results = [];
  if (values["base-url"] !== undefined) {
    const [family] = families;
    if (values.family?.length !== 1) throw new SetupError(`--base-url needs one --family.\n${HELP}`);
    const model = values.model ?? modelFolder(family);
    results.push(await runTests(family, values["base-url"], model, wanted(ENGINE_SUITES)));
  } else {
    for (const family of families) results.push(await testFamily(family));
    const own = families.includes("qwen3") ? wanted(OWN_SUITES) : [];
    if (own.length > 0) results.push(await runTests("qwen3", "its-own", modelFolder("qwen3"), own));
    if (families.includes("qwen3") && wanted([PLUGIN]).length > 0) results.push(...(await vllmTests()));
  }
  return printTotal(results);
}

run(main);
