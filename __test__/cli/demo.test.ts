import { spawn } from "node:child_process";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { Model } from "../../ts/index.ts";
import { startTestServer } from "../../ts/testing/index.ts";
import { modelFolder } from "../support.ts";

const BIN = fileURLToPath(new URL("../../bin/promptseam.mjs", import.meta.url));

interface Run {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(...args: string[]): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [BIN, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}

interface Turn {
  readonly way: string;
  readonly promptTokens: number;
  readonly kept: number;
  readonly encoded: number;
  readonly cachedTokens: number;
  readonly path: string;
}

function parse(stdout: string): { turns: Turn[]; summary: Record<string, unknown> } {
  const lines = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const { summary } = lines.pop() as { summary: Record<string, unknown> };
  return { turns: lines as unknown as Turn[], summary };
}

test("the demo grows past 32k tokens with the ids of a full render on every turn", async () => {
  const { code, stdout } = await run("demo", "--json", "--now", "2026-01-02T03:04:05Z");
  expect(code).toBe(0);
  const { turns, summary } = parse(stdout);
  const ours = turns.filter((turn) => turn.way === "promptseam");
  expect(ours.length).toBe(14);
  expect(turns.length).toBe(28);
  expect(summary).toMatchObject({ idsEqual: true, echoEqual: true });
  expect(ours.at(-1)?.promptTokens).toBeGreaterThan(32_000);
  for (const [index, turn] of ours.slice(1).entries()) {
    expect(turn.path).toBe("aligned_render");
    expect(turn.kept).toBeGreaterThan((ours[index]?.promptTokens ?? 0) - 300);
    expect(turn.kept + turn.encoded).toBe(turn.promptTokens);
    expect(turn.cachedTokens).toBeGreaterThanOrEqual(ours[index]?.cachedTokens ?? 0);
  }
});

test.each(["llama3", "deepseek", "mistral"] as const)(
  "the session renders with the template of %s",
  async (family) => {
    const { code, stdout, stderr } = await run(
      "demo",
      "--json",
      "--turns",
      "7",
      "--model",
      modelFolder(family),
    );
    expect(stderr).toBe("");
    expect(code).toBe(0);
    expect(parse(stdout).summary).toMatchObject({ turns: 7, idsEqual: true, echoEqual: true });
  },
);

test("a server that ignores the ids makes it fail", async () => {
  await using model = await Model.load(modelFolder("qwen3"));
  const server = await startTestServer({
    // It renders every conversation as if it were another one.
    model: {
      render: async () => model.encode("something else"),
      encode: (text, options) => model.encode(text, options),
      decode: (ids) => model.decode(ids),
    },
  });
  try {
    server.fail({ kind: "ids_ignored" }, { times: Number.POSITIVE_INFINITY });
    const { code, stdout } = await run("demo", "--json", "--turns", "2", "--base-url", server.baseUrl);
    expect(code).toBe(1);
    expect(parse(stdout).summary).toMatchObject({ idsEqual: true, echoEqual: false });
  } finally {
    await server.close();
  }
});

test("mistakes on the command line are exit 2, failures exit 1, each with one line", async () => {
  for (const args of [
    [],
    ["nonsense"],
    ["demo", "--nonsense"],
    ["demo", "--turns", "99"],
    ["demo", "--now", "soon"],
  ]) {
    expect((await run(...args)).code, args.join(" ")).toBe(2);
  }
  const closed = await new Promise<number>((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
  const unreachable = await run("demo", "--base-url", `http://127.0.0.1:${closed}`);
  expect(unreachable.code).toBe(1);
  expect(unreachable.stderr).toMatch(/^promptseam: .*\(PS_CONNECT\)\n$/);
  const nowhere = await run("demo", "--model", "/nowhere");
  expect(nowhere.code).toBe(1);
  expect(nowhere.stderr).toMatch(/PS_MODEL_NOT_FOUND/);
});

test("help and version", async () => {
  expect((await run("--help")).stdout).toMatch(/demo/);
  expect((await run("demo", "--help")).stdout).toMatch(/--base-url/);
  expect((await run("--version")).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});
