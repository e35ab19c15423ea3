/** Block hashes beside the KV events of a server that publishes them: one of its own, with a seed of its own. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startVllm, VLLM_HOME } from "../../scripts/vllm-server.mjs";
import { type BlockHashOptions, Prompt, VllmClient } from "../../ts/index.ts";
import { FAMILY } from "./support.ts";

const SEED = "1729";
const BLOCK = 128;
const STARTS_MS = 300_000;
const options = { profile: "vllm-sha256-cbor", blockSize: BLOCK, hashSeed: SEED } as const;

interface Stored {
  readonly type: string;
  readonly block_hashes: readonly string[];
  readonly parent_block_hash: string | null;
  readonly token_ids: readonly number[];
  readonly block_size: number;
}

const folder = mkdtempSync(join(tmpdir(), "promptseam-kv-"));
let server: Awaited<ReturnType<typeof startVllm>>;
let client: VllmClient;
let reader: ChildProcess;
const events: Stored[] = [];
let arrived = (): void => {};

/** The next event that names stored blocks. */
async function stored(): Promise<Stored> {
  while (events.length === 0) await new Promise<void>((resolve) => (arrived = resolve));
  return events.shift() as Stored;
}

beforeAll(async () => {
  const endpoint = `ipc://${folder}/events`;
  const config = { enable_kv_cache_events: true, publisher: "zmq", endpoint };
  server = await startVllm(FAMILY, {
    flags: ["--max-model-len", "8192", "--kv-events-config", JSON.stringify(config)],
    env: { PYTHONHASHSEED: SEED },
  });
  client = new VllmClient({ baseUrl: server.baseUrl });
  reader = spawn(join(VLLM_HOME, ".venv/bin/python"), ["scripts/vllm/kv_events.py", endpoint], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = createInterface({ input: reader.stdout as NodeJS.ReadableStream });
  await once(lines, "line");
  lines.on("line", (line) => {
    const event = JSON.parse(line) as Stored;
    if (event.type === "BlockStored") events.push(event);
    arrived();
  });
}, STARTS_MS);
afterAll(async () => {
  reader?.kill();
  await client?.close();
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
}, STARTS_MS);

/** Has the server compute `prompt`, and compares what it says it stored from block `known` on. */
async function compare(prompt: Prompt, known: number, salt?: string): Promise<void> {
  const params = { max_tokens: 1, ...(salt === undefined ? {} : { cache_salt: salt }) };
  await client.complete(prompt, params).collect();
  const salted: BlockHashOptions = salt === undefined ? options : { ...options, cacheSalt: salt };
  const hashes = [...(await prompt.blockHashes(salted)).eventHashes()].map(String);
  // One event for each step in which the engine computed the prompt.
  for (let from = known; from < hashes.length; ) {
    const event = await stored();
    const to = from + event.block_hashes.length;
    expect(event).toMatchObject({
      block_size: BLOCK,
      block_hashes: hashes.slice(from, to),
      parent_block_hash: from === 0 ? null : hashes[from - 1],
      token_ids: [...prompt.tokenIds().subarray(from * BLOCK, to * BLOCK)],
    });
    from = to;
  }
  expect(events).toEqual([]);
}

test("events carry the hashes of the blocks that a prompt added, and their parent", async () => {
  const ids = Uint32Array.from({ length: 3_000 }, (_, index) => 100 + ((index * 7_919) % 90_000));
  const first = Prompt.fromIds(ids.subarray(0, 1_000));
  await compare(first, 0);
  const second = first.continued(ids.subarray(1_000, 1_500));
  await compare(second, 7);
  // Two branches of it, one shared up to inside a block.
  await compare(second.continued(ids.subarray(2_000), 1_500), 11);
  await compare(second.continued(ids.subarray(1_800, 2_600), 1_290), 10);
});

test("a salt gives the same ids other hashes, from the first block on", async () => {
  const ids = Uint32Array.from({ length: 700 }, (_, index) => 100 + ((index * 104_729) % 90_000));
  const prompt = Prompt.fromIds(ids);
  await compare(prompt, 0);
  for (const salt of ["tenant-a", "ténant-ß"]) {
    await compare(prompt, 0, salt);
    await compare(prompt.continued(ids), 5, salt);
  }
});
