/** A certificate that does not hold right before sending: the prompt goes out as the full render gives it, and says why. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Certificate, type Model, Seam, type Turn, VllmClient } from "../../ts/index.ts";
import { startTestServer, type TestServer } from "../../ts/testing/index.ts";
import { assistant, BARE, fullRender, NOW, promptOf, take, testModel, user } from "./support.ts";
import { tinyModel } from "./tiny-model.ts";

let model: Model;
let server: TestServer;
let client: VllmClient;
beforeAll(async () => {
  model = await tinyModel();
  server = await startTestServer({ model: testModel(model), answers: { text: "Two." } });
  client = new VllmClient({ baseUrl: server.baseUrl });
});
afterAll(async () => {
  await client.close();
  await server.close();
  model.close();
});

const here = { now: NOW, tenant: "acme", conversation: "c" };
const first = { messages: [{ role: "system", content: "Be brief." }, user("One?")] };
const second = { messages: [...first.messages, assistant("One."), user("Two?")] };

/** A certified turn, not yet sent. */
async function planned(): Promise<{ seam: Seam; turn: Turn; certificate: Writable<Certificate> }> {
  const seam = new Seam({ model, client, ...BARE });
  await take(seam, model, first, assistant("One."), here);
  const turn = await seam.prepare(second, here);
  expect(turn.outcome).toEqual({ kind: "certified_suffix" });
  return { seam, turn, certificate: turn.certificate as Writable<Certificate> };
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

async function send(turn: Turn): Promise<void> {
  for await (const _ of turn.stream());
}

async function expectRightIdsSent(): Promise<void> {
  const chats = server.requests.filter(({ path }) => path === "/v1/chat/completions");
  expect([...(chats.at(-1)?.ids ?? [])]).toEqual(await fullRender(model, second));
}

const changed = (digest: string) => `${digest[0] === "0" ? "1" : "0"}${digest.slice(1)}`;

test("one that holds goes through", async () => {
  const { seam, turn } = await planned();
  const before = server.requests.length;
  await send(turn);
  await expectRightIdsSent();
  expect(turn.outcome).toEqual({ kind: "certified_suffix" });
  expect(seam.stats()).toMatchObject({ refusedCertificates: 0, committed: 2 });
  expect(server.requests.slice(before).filter(({ path }) => path === "/v1/chat/completions")).toHaveLength(1);
});

test("it says what the continuation is made of", async () => {
  const { turn, certificate } = await planned();
  const { length } = promptOf(turn);
  expect(certificate).toMatchObject({
    tenant: "acme",
    combinedTokens: length,
    appendTokens: turn.appendedLength,
  });
  expect(certificate.boundary + certificate.appendTokens).toBe(length);
  expect(certificate.environment.map(({ field }) => field)).toEqual([
    "model",
    "tokenizer",
    "template",
    "arguments",
    "tools",
    "reasoning",
    "lora",
    "renderer",
    "salt",
    "date",
  ]);
});

const DIGESTS = ["", "00", "zz".repeat(32), "é".repeat(64), "0".repeat(64)];
const COUNTS = [0, -1, 1.5, 2 ** 32 - 1, 2 ** 40, Number.NaN, Number.POSITIVE_INFINITY];

describe.each<[keyof Certificate, string, readonly unknown[]]>([
  ["tenant", "tenant_mismatch", ["", "other", "acme "]],
  ["expires", "artifact_expired", [0, 1, Date.now() - 1, -1, Number.NaN]],
  ["prefixId", "artifact_miss", DIGESTS],
  ["boundary", "unsafe_boundary", [2, 5, -1, 2 ** 32 - 1]],
  ["prefixTokens", "prefix_mismatch", COUNTS],
  ["appendTokens", "prefix_mismatch", COUNTS],
  ["combinedTokens", "prefix_mismatch", COUNTS],
  ["appendHash", "prefix_mismatch", DIGESTS],
  ["combinedId", "prefix_mismatch", DIGESTS],
])("%s that is another: %s", (field, reason, values) => {
  test.each([...values].map((value) => [value]))("%s", async (value) => {
    const { seam, turn, certificate } = await planned();
    (certificate as Record<string, unknown>)[field] = value;
    await send(turn);
    await expectRightIdsSent();
    expect(turn.outcome).toEqual({ kind: "full_render", reason });
    expect([turn.prefixLength, turn.certificate]).toEqual([0, null]);
    expect(await turn.committed).toEqual({ status: "committed" });
    expect(seam.stats().refusedCertificates).toBe(1);
  });
});

test.each<[string, (certificate: Certificate) => unknown]>([
  ["boundary", () => 0],
  ["boundary", () => Number.NaN],
  ["boundary", ({ boundary }) => boundary + 1],
  ["boundary", ({ boundary }) => boundary - 1],
  ["prefixTokens", ({ prefixTokens }) => prefixTokens + 1],
  ["appendTokens", ({ appendTokens }) => appendTokens - 1],
  ["combinedTokens", ({ combinedTokens }) => combinedTokens + 1],
  ["prefixId", ({ prefixId }) => changed(prefixId)],
  ["appendHash", ({ appendHash }) => changed(appendHash)],
  ["combinedId", ({ combinedId }) => changed(combinedId)],
])("%s that is nearly right does not hold either", async (field, change) => {
  const { turn, certificate } = await planned();
  (certificate as Record<string, unknown>)[field] = change(certificate);
  await send(turn);
  await expectRightIdsSent();
  expect(turn.outcome.kind).toBe("full_render");
});

describe.each(["boundary", "prefixTokens", "appendTokens", "combinedTokens"] as const)("%s", (field) => {
  test.each([0.5, 2 ** 32])("is not right with %d more", async (more) => {
    const { seam, turn, certificate } = await planned();
    certificate[field] += more;
    await send(turn);
    await expectRightIdsSent();
    expect(turn.outcome.kind).toBe("full_render");
    expect(seam.stats().refusedCertificates).toBe(1);
  });
});

describe("an environment that is another names the field", () => {
  const FIELDS = [
    "model",
    "tokenizer",
    "template",
    "arguments",
    "tools",
    "reasoning",
    "lora",
    "renderer",
    "salt",
    "date",
  ];

  test.each(FIELDS)("%s", async (field) => {
    const { turn, certificate } = await planned();
    certificate.environment = certificate.environment.map((each) =>
      each.field === field ? { field, digest: changed(each.digest) } : each,
    );
    await send(turn);
    await expectRightIdsSent();
    expect(turn.outcome).toEqual({ kind: "full_render", reason: "fingerprint_mismatch", field });
  });

  test.each<[string, (fields: Certificate["environment"]) => Certificate["environment"]]>([
    ["none", () => []],
    ["one less", (fields) => fields.slice(0, -1)],
    ["in another order", (fields) => [...fields].reverse()],
    ["under another name", (fields) => fields.map(({ digest }) => ({ field: "x", digest }))],
  ])("%s", async (_, change) => {
    const { turn, certificate } = await planned();
    certificate.environment = change(certificate.environment);
    await send(turn);
    await expectRightIdsSent();
    expect(turn.outcome).toMatchObject({ kind: "full_render", reason: "fingerprint_mismatch" });
  });
});

test("a refused one is no obstacle to the turn after it", async () => {
  const { seam, turn, certificate } = await planned();
  certificate.combinedId = changed(certificate.combinedId);
  await send(turn);
  const next = await seam.prepare({ append: [user("Three?")] }, here);
  expect(next.outcome).toEqual({ kind: "certified_suffix" });
  expect([...promptOf(next).tokenIds()]).toEqual(
    await fullRender(model, { messages: [...second.messages, assistant("Two."), user("Three?")] }),
  );
});
