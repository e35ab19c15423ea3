import { readFileSync } from "node:fs";
import { expect, expectTypeOf, test } from "vitest";
import { BlockHashes, type BlockHashOptions, Prompt, PromptseamError } from "../ts/index.ts";

interface Line {
  readonly algorithm: "sha256_cbor" | "xxhash_cbor";
  readonly hash_seed: string;
  readonly block_size: number;
  readonly cache_salt: string | null;
  readonly token_ids: readonly number[];
  readonly block_hashes: readonly string[];
}

const fixture = new URL("./fixtures/golden/vllm-block-hashes.json", import.meta.url);
const lines = JSON.parse(readFileSync(fixture, "utf8")) as Line[];
const profiles = { sha256_cbor: "vllm-sha256-cbor", xxhash_cbor: "vllm-xxhash-cbor" } as const;
const plain: BlockHashOptions = { profile: "vllm-xxhash-cbor", hashSeed: "0" };
const someIds = (length: number) => Uint32Array.from({ length }, (_, index) => (index * 7_919) % 150_000);

async function code(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => "none",
    (cause: unknown) => cause,
  );
  return PromptseamError.isInstance(error) ? error.code : String(error);
}

test.each(lines)("$algorithm, blocks of $block_size, seed $hash_seed: vLLM's own hashes", async (line) => {
  const hashes = await Prompt.fromIds(line.token_ids).blockHashes({
    profile: profiles[line.algorithm],
    blockSize: line.block_size,
    hashSeed: line.hash_seed,
    ...(line.cache_salt === null ? {} : { cacheSalt: line.cache_salt }),
  });
  expect(hashes.hex()).toEqual(line.block_hashes);
  expect(hashes.length).toBe(line.block_hashes.length);
  expect(hashes.digestLength).toBe(line.algorithm === "sha256_cbor" ? 32 : 16);
  expect(hashes.bytes).toHaveLength(hashes.length * hashes.digestLength);
});

test("a KV event's hash is the low 64 bits of the whole one", async () => {
  const hashes = await Prompt.fromIds(someIds(100)).blockHashes(plain);
  const low = hashes.hex().map((digits) => BigInt(`0x${digits}`) & 0xffff_ffff_ffff_ffffn);
  expect([...hashes.eventHashes()]).toEqual(low);
  expect(low).toHaveLength(6);
});

test("one hash can be looked at alone", async () => {
  const hashes = await Prompt.fromIds(someIds(40)).blockHashes(plain);
  expect(Buffer.from(hashes.digest(1) ?? []).toString("hex")).toBe(hashes.hex()[1]);
  for (const index of [-1, 2, 0.5, Number.NaN]) expect(hashes.digest(index)).toBeUndefined();
});

test("ids that fill no block have no hashes", async () => {
  for (const length of [0, 15]) {
    const hashes = await Prompt.fromIds(someIds(length)).blockHashes(plain);
    expect([hashes.length, hashes.hex(), hashes.eventHashes().length]).toEqual([0, [], 0]);
  }
});

test("a long prompt and what it grows into have the hashes of prompts made anew", async () => {
  const ids = someIds(30_000);
  const first = Prompt.fromIds(ids.subarray(0, 28_000));
  const options = { ...plain, profile: "vllm-sha256-cbor" } as const;
  const [one, same] = await Promise.all([first.blockHashes(options), first.blockHashes(options)]);
  expect(one.bytes).toEqual(same.bytes);
  const grown = await first.continued(ids.subarray(27_000), 27_000).blockHashes(options);
  const anew = await Prompt.fromIds(ids).blockHashes(options);
  expect(grown.hex()).toEqual(anew.hex());
  expect(grown.hex().slice(0, 1_750)).toEqual(one.hex());
});

test("defaults are blocks of 16 and the salt as vLLM 0.32 writes it", async () => {
  const prompt = Prompt.fromIds(someIds(64));
  const hex = async (more: Partial<BlockHashOptions>) =>
    (await prompt.blockHashes({ ...plain, cacheSalt: "tenant", ...more })).hex();
  const usual = await hex({});
  expect(await hex({ blockSize: 16, saltEncoding: "tagged" })).toEqual(usual);
  expect(await hex({ saltEncoding: "bare" })).not.toEqual(usual);
  expect(await hex({ lora: { name: "sql", path: "/adapters/sql" } })).not.toEqual(usual);
  expect(await hex({ cacheSalt: "" })).toEqual((await prompt.blockHashes(plain)).hex());
});

test("what is unknown or out of range is a typed error", async () => {
  const prompt = Prompt.fromIds(someIds(64));
  const hash = (more: object) => code(prompt.blockHashes({ ...plain, ...more } as BlockHashOptions));
  for (const wrong of [
    { profile: "vllm-md5" },
    { profile: undefined },
    { blockSize: 0 },
    { blockSize: 4_097 },
    { blockSize: 16.5 },
    { blockSize: "16" },
    { cacheSalt: "s".repeat(1_001) },
    { cacheSalt: 7 },
    { hashSeed: undefined },
    { hashSeed: 0 },
    { saltEncoding: "plain" },
    { lora: { name: "sql" } },
    { lora: {} },
    { lora: "sql" },
    { lora: null },
  ]) {
    expect(await hash(wrong), JSON.stringify(wrong)).toBe("PS_INVALID_ARGUMENT");
  }
  expect(await code(prompt.blockHashes(undefined as never))).toBe("PS_INVALID_ARGUMENT");
  expect(await hash({ cacheSalt: "\ud800" })).toBe("PS_INVALID_UNICODE");
  expect(await hash({ cacheSalt: "é".repeat(1_000) })).toBe("none");
  expect(await hash({ signal: AbortSignal.abort() })).toBe("PS_ABORTED");
  prompt.close();
  expect(await hash({})).toBe("PS_CLOSED");
});

test("the type is what the documentation says", () => {
  expectTypeOf<Prompt["blockHashes"]>().returns.resolves.toEqualTypeOf<BlockHashes>();
  expect(BlockHashes.name).toBe("BlockHashes");
});
