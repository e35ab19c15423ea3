// `npm run soak:handle`: many conversations by prompt handle on a real vLLM that forgets: handles are dropped and evicted, the
// server is restarted. Every prompt must be the full render, the plugin must stay within its bytes, and no error may reach the
// caller, but for streams that a restart cuts off in their middle. Exit code 1 where something was not as it should be.

import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { run } from "./results.mjs";
import { setup } from "./setup.mjs";
import { Conversation } from "./soak/conversation.mjs";
import { Report } from "./soak/report.mjs";
import { modelFolder, startVllm } from "./vllm-server.mjs";

const HELP = `npm run soak:handle [-- options]

  --minutes N        default: 10
  --restarts N       restarts of the server, at random times. Default: one for each 3 minutes
  --conversations N  at once. Default: 32
  --help
`;
const TENANTS = 8;
/** Little enough that the handles of conversations that go on are evicted too. */
const MAX_BYTES = 240 * 1024;
const TENANT_MAX_BYTES = 36 * 1024;
const WATCH_EVERY_MS = 1_000;
const BETWEEN_RESTARTS_MS = 90_000;

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    restarts: { type: "string" },
    conversations: { type: "string", default: "32" },
    help: { type: "boolean", default: false },
  },
});

/** `port`: that of the server which is started again. */
function start(port) {
  return startVllm("qwen3", {
    flags: ["--max-model-len", "16384"],
    env: {
      PROMPTSEAM_MAX_BYTES: String(MAX_BYTES),
      PROMPTSEAM_TENANT_MAX_BYTES: String(TENANT_MAX_BYTES),
    },
    port,
  });
}

async function soak(minutes, restarts, count) {
  await setup();
  const [{ Model, Seam, VllmClient }, { HANDLES_PATH, tenantHeaders }] = await Promise.all([
    import("../dist/index.js"),
    import("../dist/vllm/handle.js"),
  ]);
  const model = await Model.load(modelFolder("qwen3"));
  const report = new Report();
  let server = await start();
  // Long enough for a restart: what was not answered yet is sent again.
  const client = new VllmClient({ baseUrl: server.baseUrl, retries: 10, retryDelayMs: 300 });
  const seam = new Seam({ model, client, transport: "handle" });
  const drop = async ({ id, tenant, salt }) => {
    try {
      const answer = await fetch(`${server.baseUrl}${HANDLES_PATH}/drop`, {
        method: "POST",
        headers: { "content-type": "application/json", ...tenantHeaders(tenant) },
        body: JSON.stringify({ prompt_cache_ref: { id }, cache_salt: salt }),
      });
      if (answer.ok) report.drops++;
    } catch {
      // The server is being restarted.
    }
  };
  const conversations = Array.from({ length: count }, (_, number) => {
    return new Conversation({ model, seam, report, drop, number, tenant: `tenant ${number % TENANTS}` });
  });

  const began = Date.now();
  const until = began + 60_000 * minutes;
  const watch = async () => {
    while (Date.now() < until) {
      await sleep(WATCH_EVERY_MS);
      if (report.goingDown) continue;
      try {
        report.watched(await client.metrics(), MAX_BYTES);
      } catch {
        // The server is being restarted.
      }
    }
  };
  // Not in the first and last part of the time, so that there is something to forget, and to come after it.
  const restart = async () => {
    const part = (until - began) / (restarts + 1);
    for (let at = 1; at <= restarts; at++) {
      const due = began + part * (at - 0.4 + Math.random() * 0.6) - Date.now();
      // Whoever waits for the last restart has to get through before the next: each try waits twice as long as the one before.
      await sleep(at === 1 ? due : Math.max(due, BETWEEN_RESTARTS_MS));
      report.goingDown = true;
      await server.stop();
      report.restarted();
      server = await start(Number(new URL(server.baseUrl).port));
      report.goingDown = false;
    }
  };
  const progress = setInterval(() => {
    process.stdout.write(`\r${report.line((Date.now() - began) / 60_000)}`);
  }, 5_000);
  try {
    await Promise.all([...conversations.map((conversation) => conversation.run(until)), watch(), restart()]);
    report.watched(await client.metrics(), MAX_BYTES);
  } finally {
    clearInterval(progress);
    await client.close();
    await server.stop();
  }
  const { shadowMismatches, outcomes } = seam.stats();
  if (shadowMismatches > 0) report.problem(`${shadowMismatches} certified prompts were not the full render`);
  if (report.misses === 0 || report.byHandle < report.turns / 2)
    report.problem("the soak did not do what it is for: no misses, or most turns did not go by handle");
  process.stdout.write(`\n${JSON.stringify(outcomes)}\n`);
  process.stdout.write(`${report.line((Date.now() - began) / 60_000)}\n`);
  model.close();
  return report.problems.length === 0 ? 0 : 1;
}

// Node's own end on a signal would leave the server behind.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));

run(async () => {
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const minutes = Number(values.minutes);
  const restarts = Number(values.restarts ?? Math.floor(minutes / 3));
  return soak(minutes, restarts, Number(values.conversations));
});
