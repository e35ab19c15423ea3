/** Our rendering against the server's own, id by id. */

import { request } from "undici";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Model, VllmClient } from "../../ts/index.ts";
import { generateRequest } from "./generator.ts";
import { generateHarmonyRequest } from "./harmony.ts";
import { BASE_URL, FAMILY, loadModel, longRequest } from "./support.ts";

const REQUESTS = 1_000;
const generate = FAMILY === "gpt-oss" ? generateHarmonyRequest : generateRequest;
let model: Model;
let client: VllmClient;

beforeAll(async () => {
  model = await loadModel();
  client = new VllmClient({ baseUrl: BASE_URL });
});
afterAll(async () => {
  await client.close();
  model.close();
});

test("verify passes", async () => {
  const report = await client.verify(model);
  expect(report.differences).toEqual([]);
  expect(report).toMatchObject({ ok: true });
  expect(report.refused).toBeLessThan(report.probes / 2);
});

/** What the server makes of a body, without our client: ids, or null for a refusal. */
async function theirs(body: string): Promise<number[] | null> {
  const send = () =>
    request(`${BASE_URL}/v1/chat/completions/render`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
  // A kept connection may be closed by the server at the very moment it is used.
  const answer = await send().catch(send);
  if (answer.statusCode !== 200) {
    await answer.body.dump();
    return null;
  }
  return ((await answer.body.json()) as { token_ids: number[] }).token_ids;
}

async function ours(body: string): Promise<number[] | null> {
  try {
    const prompt = await model.render(Buffer.from(body));
    return [...prompt.tokenIds()];
  } catch {
    return null;
  }
}

test(`${REQUESTS} generated requests: the same ids, or refused by both`, { timeout: 300_000 }, async () => {
  const different: string[] = [];
  let equal = 0;
  for (let seed = 0; seed < REQUESTS; seed++) {
    const body = generate(seed);
    const [here, there] = [await ours(body), await theirs(body)];
    if (JSON.stringify(here) !== JSON.stringify(there)) different.push(`seed ${seed}`);
    else if (here !== null) equal++;
  }
  expect(different).toEqual([]);
  expect(equal, "most of them must be rendered, not refused").toBeGreaterThan(REQUESTS / 3);
});

test.each([28_000, 120_000])("a prompt of %i tokens", { timeout: 120_000 }, async (tokens) => {
  const body = await longRequest(model, tokens);
  const [here, there] = [await model.render(body), await client.render(body)];
  expect(here.length).toBeGreaterThan(tokens * 0.9);
  expect(here.length).toBeLessThan(tokens * 1.09);
  expect(there.equals(here)).toBe(true);
});
