/** Native memory over many turns that end in every way: bodies and prompts go when their answers do. */

import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Prompt, VllmClient } from "../../ts/index.ts";
import { startTestServer, type TestServer } from "../../ts/testing/index.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

const IDS = 28_000;
let server: TestServer;
let client: VllmClient;
let number = 0;

beforeAll(async () => {
  server = await startTestServer({ cacheBlocks: 1_000, vocabularySize: 200_000 });
  client = new VllmClient({ baseUrl: server.baseUrl });
});
afterAll(async () => {
  await client.close();
  await server.close();
});

/** A prompt like no other: nothing of it is shared. */
function freshPrompt(): Prompt {
  number++;
  return Prompt.fromIds(
    Uint32Array.from({ length: IDS }, (_, i) => 256 + ((i * 7_919 + number * 104_729) % 150_000)),
  );
}

const ENDS: readonly (() => Promise<unknown>)[] = [
  () => client.generate(freshPrompt(), { max_tokens: 2 }).collect(),
  async () => {
    for await (const _ of client.generate(freshPrompt(), { max_tokens: 2 })) break;
  },
  () => {
    server.fail({ kind: "status", status: 400 });
    return client
      .generate(freshPrompt())
      .collect()
      .catch(() => {});
  },
  () => {
    server.fail({ kind: "reset", when: "before_headers" });
    return client
      .generate(freshPrompt())
      .collect()
      .catch(() => {});
  },
  async () => {
    server.fail({ kind: "hang", when: "first_token" });
    const controller = new AbortController();
    const work = client.generate(freshPrompt(), {}, { signal: controller.signal }).collect();
    setTimeout(() => controller.abort(), 10);
    await work.catch(() => {});
  },
  async () => {
    // Never read: never sent.
    await client.generate(freshPrompt()).cancel();
  },
];

async function resident(rounds: number): Promise<number> {
  for (let round = 0; round < rounds; round++) {
    for (const end of ENDS) {
      await end();
      // An abort may come before the server got to its fault.
      server.heal();
    }
    // What the test server remembers of each request would be all that grows.
    (server.requests as unknown[]).length = 0;
  }
  for (let i = 0; i < 3; i++) {
    collect();
    await sleep(20);
  }
  return process.memoryUsage.rss();
}

test("hundreds of turns leave nothing behind", { timeout: 120_000 }, async () => {
  await resident(15);
  const before = await resident(10);
  const turns = 40 * ENDS.length;
  const grown = (await resident(40)) - before;
  // A body has 190 kB and a prompt 140 kB: were either kept, they would be 45 MB and 33 MB.
  expect(turns).toBeGreaterThanOrEqual(240);
  expect(grown).toBeLessThan(20e6);
});
