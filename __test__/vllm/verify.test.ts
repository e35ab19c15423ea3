/** `verify` against servers that render otherwise: each difference is named for what it is. */

import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Model, PromptseamError, VllmClient } from "../../ts/index.ts";
import { startTestServer, type TestModel } from "../../ts/testing/index.ts";
import { modelFolder } from "../support.ts";

let model: Model;
let template: string;

beforeAll(async () => {
  const folder = modelFolder("qwen3");
  model = await Model.load(folder);
  template = JSON.parse(readFileSync(`${folder}/tokenizer_config.json`, "utf8")).chat_template;
});
afterAll(() => model.close());

/** What the client finds where the server renders by `theirs`. */
async function verify(theirs: TestModel, here = model) {
  await using server = await startTestServer({ model: theirs });
  await using client = new VllmClient({ baseUrl: server.baseUrl });
  return await client.verify(here);
}

/** Our own model with another rendering. */
function rendering(render: TestModel["render"]): TestModel {
  return { render, encode: (text) => model.encode(text), decode: (ids) => model.decode(ids) };
}

const ours = (request: object) => model.render(request as Parameters<Model["render"]>[0]);

test("the same model passes", async () => {
  const report = await verify(rendering(ours));
  expect(report).toMatchObject({ ok: true, differences: [] });
  expect(report.probes).toBeGreaterThan(25);
});

describe("a server with", () => {
  test("another template: where the texts part, with what stands there", async () => {
    const changed = template.replace("# Tools", "# Instruments");
    expect(changed).not.toBe(template);
    await using other = await Model.load(modelFolder("qwen3"), { chatTemplate: changed });
    const report = await verify(rendering((request) => other.render(request as never)));
    expect(report.ok).toBe(false);
    const [first] = report.differences;
    expect(first).toMatchObject({ kind: "text", probe: "tools, not used yet" });
    expect(first?.message).toContain('we have "Tools');
    expect(first?.message).toContain('the server has "Instruments');
    // Only the probes with tools differ.
    expect(report.differences.length).toBeLessThan(report.probes / 2);
  });

  test("another tokenizer: the same text, other ids", async () => {
    const spelled = async (request: object) => {
      const text = await model.renderText(request as never);
      // Letter by letter: no tokenizer of ours would do that.
      const ids = await Promise.all([...text].map((letter) => model.encode(letter, { special: "text" })));
      return Uint32Array.from(ids.flatMap((part) => [...part]));
    };
    const report = await verify(rendering(spelled));
    expect(report.differences[0]).toMatchObject({ kind: "ids", probe: "one user message" });
    expect(report.differences[0]?.message).toContain("tokenizer.json");
  });

  test("another vocabulary", async () => {
    const report = await verify(rendering(() => Uint32Array.of(1, 2, 4_000_000)));
    expect(report.differences[0]?.message).toContain("another model");
  });

  test("a template that refuses what ours takes", async () => {
    const strict = `{%- if tools %}{{ raise_exception("no tools here") }}{%- endif %}${template}`;
    await using other = await Model.load(modelFolder("qwen3"), { chatTemplate: strict });
    const report = await verify(rendering((request) => other.render(request as never)));
    expect(report.differences[0]).toMatchObject({ kind: "server_refuses", commonPrefix: null });
    expect(report.differences[0]?.message).toContain("no tools here");
  });

  test("a template that takes what ours refuses", async () => {
    const strict = `{%- if tools %}{{ raise_exception("no tools here") }}{%- endif %}${template}`;
    await using here = await Model.load(modelFolder("qwen3"), { chatTemplate: strict });
    const report = await verify(rendering(ours), here);
    expect(report.differences[0]).toMatchObject({ kind: "we_refuse", probe: "tools, not used yet" });
    expect(report.differences[0]?.message).toContain("PS_TEMPLATE_RAISED");
  });

  test("another date", async () => {
    const dated = `{{ strftime_now("%Y-%m-%d") }}${template}`;
    await using here = await Model.load(modelFolder("qwen3"), { chatTemplate: dated });
    await using server = await startTestServer({
      model: rendering((request) =>
        here.render(request as never, { now: new Date(Date.now() + 86_400_000) }),
      ),
    });
    await using client = new VllmClient({ baseUrl: server.baseUrl });
    const report = await client.verify(here);
    expect(new Set(report.differences.map(({ kind }) => kind))).toEqual(new Set(["date"]));
    expect(report.differences).toHaveLength(report.probes);
    expect(report.differences[0]?.message).toContain("TZ");
  });
});

test("a server that cannot be asked is an error, not a difference", async () => {
  await using server = await startTestServer();
  await using client = new VllmClient({ baseUrl: server.baseUrl });
  const path = "/v1/chat/completions/render";
  server.fail({ kind: "status", status: 404, body: '{"detail":"Not Found"}' }, { path });
  const error = await client.verify(model).catch((reason: unknown) => reason);
  if (!PromptseamError.isInstance(error)) throw error;
  expect(error.message).toContain("render endpoint");
  server.fail({ kind: "status", status: 503 }, { path });
  await expect(client.verify(model)).rejects.toMatchObject({ code: "PS_HTTP_STATUS" });
  await expect(client.verify(model, { signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: "PS_ABORTED",
  });
});
