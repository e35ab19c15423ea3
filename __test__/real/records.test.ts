/** Records over restarts: of the process that holds the Seam, and of the server, whose cache is cold then. */

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startVllm } from "../../scripts/vllm-server.mjs";
import { type ChatMessage, type Chunk, type Model, type Outcome, VllmClient } from "../../ts/index.ts";
import { messageOf, play, script, TOOLS, toolSession } from "./sessions.ts";
import { FAMILY, loadModel, MODEL_FOLDER } from "./support.ts";

const STARTS_MS = 300_000;
const PORT = 18_518;
const WORKER = join(import.meta.dirname, "records-worker.mjs");

let server: Awaited<ReturnType<typeof startVllm>>;
let client: VllmClient;
let model: Model;
const folder = mkdtempSync(join(tmpdir(), "promptseam-records-"));

const start = () => startVllm(FAMILY, { flags: ["--max-model-len", "32768"], port: PORT });

beforeAll(async () => {
  [server, model] = await Promise.all([start(), loadModel()]);
  client = new VllmClient({ baseUrl: server.baseUrl });
}, STARTS_MS);
afterAll(async () => {
  model.close();
  await client.close();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
}, STARTS_MS);

interface Told {
  readonly status: string;
  readonly outcome: Outcome;
  readonly ids: readonly number[];
  readonly salt: string;
  readonly chunks: readonly Chunk[];
  readonly failed?: string;
}

class Worker {
  #child: ChildProcess | undefined;
  readonly #file: string;

  constructor(name: string) {
    this.#file = join(folder, name);
  }

  async take(request: object, options: object): Promise<Told> {
    if (this.#child === undefined) {
      this.#child = fork(WORKER, [MODEL_FOLDER, server.baseUrl, this.#file]);
      await once(this.#child, "message");
    }
    this.#child.send({ request, options });
    const [told] = (await once(this.#child, "message")) as [Told];
    expect(told.failed).toBeUndefined();
    return told;
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
}

interface Played {
  readonly outcome: Outcome;
  readonly ids: readonly number[];
  readonly cached: number;
}

/** Plays a session of twelve turns; `between` runs before each. */
async function session(
  name: string,
  between: (turn: number, worker: Worker) => Promise<void>,
): Promise<Played[]> {
  const worker = new Worker(`${name}.db`);
  const options = { conversation: "c", tenant: "records" };
  const history: ChatMessage[] = [];
  const played: Played[] = [];
  const salts = new Set<string>();
  let answer: ChatMessage | undefined;
  for (const [turn, step] of toolSession(FAMILY, 3).entries()) {
    await between(turn, worker);
    if (answer !== undefined) history.push(answer);
    const append = step.add(answer);
    history.push(...append);
    const members = { ...play(await script(model, step.say)), max_tokens: 500 };
    const request = turn === 0 ? { messages: append, tools: TOOLS, ...members } : { append, ...members };
    const told = await worker.take(request, options);
    expect(told.status).toBe("committed");
    salts.add(told.salt);
    const theirs = await client.render({ messages: history, tools: TOOLS });
    expect(told.ids, `turn ${turn}`).toEqual([...theirs.tokenIds()]);
    answer = messageOf(told.chunks);
    const usage = told.chunks.find((chunk) => chunk.type === "usage");
    played.push({ outcome: told.outcome, ids: told.ids, cached: usage?.usage.cachedTokens ?? -1 });
  }
  await worker.kill();
  expect([...salts]).toEqual([expect.stringMatching(/^[\w-]{43}$/)]);
  return played;
}

test("the holder of the Seam killed, and the server restarted: the ids are those of a session without", {
  timeout: 2 * STARTS_MS,
}, async () => {
  const whole = await session("whole", async () => {});
  const broken = await session("broken", async (turn, worker) => {
    if (turn > 0 && turn % 2 === 0) await worker.kill();
    if (turn !== 7) return;
    await server.stop();
    server = await start();
  });
  expect(broken.map(({ outcome }) => outcome)).toEqual(whole.map(({ outcome }) => outcome));
  expect(broken.map(({ ids }) => ids.length)).toEqual(whole.map(({ ids }) => ids.length));
  // Mistral's template prints the ids of calls, which the server makes up.
  if (FAMILY !== "mistral") expect(broken.map(({ ids }) => ids)).toEqual(whole.map(({ ids }) => ids));
  expect(broken[7]?.cached, "cold").toBe(0);
  expect(broken.at(-1)?.cached).toBeGreaterThan(0);
  expect(whole.at(-1)?.cached).toBeGreaterThan(0);
});
