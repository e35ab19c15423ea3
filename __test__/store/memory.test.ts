/** The store in memory, besides what every store does: its bounds, and that it keeps artifacts themselves. */

import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { type Artifact, type Commit, MemoryStore } from "../../ts/index.ts";
import { Artifacts } from "../../ts/testing/artifacts.ts";

let artifacts: Artifacts;
beforeAll(async () => {
  artifacts = await Artifacts.create();
});
afterAll(() => artifacts.close());
afterEach(() => vi.useRealTimers());

let turns = 0;

function turnOf(artifact: Artifact, more: Partial<Commit> = {}): Commit {
  return {
    tenant: "a",
    conversation: "c",
    artifact,
    expires: Number.POSITIVE_INFINITY,
    version: 0,
    toolRound: false,
    turn: `${turns++}`,
    ...more,
  };
}

const sized = (text: string) => text.repeat(2_000);

describe("bounds", () => {
  test("what is held stays within them, and is told to the byte", async () => {
    const maxBytes = 100_000;
    const store = new MemoryStore({ maxBytes });
    for (let at = 0; at < 40; at++) {
      store.commit(turnOf(await artifacts.one(sized(`${at} `)), { conversation: `c${at}` }));
      expect(store.stats().bytes).toBeLessThanOrEqual(maxBytes);
    }
    const { artifacts: kept, evictions } = store.stats();
    expect(kept).toBeGreaterThan(1);
    expect(kept + evictions).toBe(40);
  });

  test("the least recently used leave first", async () => {
    const [a, b, c] = (await Promise.all(["a ", "b ", "c "].map((text) => artifacts.one(sized(text))))) as [
      Artifact,
      Artifact,
      Artifact,
    ];
    const store = new MemoryStore({ maxBytes: Math.ceil(2.2 * (a.bytes + 1_400)) });
    store.commit(turnOf(a, { conversation: "a" }));
    store.commit(turnOf(b, { conversation: "b" }));
    // Looked at, so that it is not the oldest any more.
    expect(store.load("a", "a")?.tip).toBeDefined();
    store.commit(turnOf(c, { conversation: "c" }));
    const held = (name: string) => store.load("a", name)?.tip !== undefined;
    expect(["a", "b", "c"].map(held)).toEqual([true, false, true]);
    expect(store.stats().evictions).toBe(1);
  });

  test("a conversation whose artifacts left is remembered, until there are too many of these", async () => {
    const store = new MemoryStore({ maxBytes: 20_000 });
    const artifact = await artifacts.one(sized("x "));
    for (let at = 0; at < 200; at++) store.commit(turnOf(artifact, { conversation: `c${at}` }));
    const { conversations, artifacts: kept, bytes } = store.stats();
    expect(kept).toBeLessThanOrEqual(1);
    expect(conversations).toBeGreaterThan(10);
    expect(conversations).toBeLessThan(60);
    expect(bytes).toBeLessThanOrEqual(20_000);
    expect(store.load("a", "c199")).toMatchObject({ version: 1 });
    expect(store.load("a", "c0")).toBeUndefined();
  });

  test("artifacts that went on from one another leave together", async () => {
    const chain = await artifacts.chain(["One?", "Two?", "Three?"]);
    const store = new MemoryStore({ maxBytes: 40_000 });
    for (const [version, artifact] of chain.entries()) store.commit(turnOf(artifact, { version }));
    expect(store.stats().artifacts).toBe(3);
    for (let at = 0; at < 10; at++) {
      store.commit(turnOf(await artifacts.one(sized(`${at} `)), { conversation: `other ${at}` }));
    }
    expect(store.stats().evictions).toBeGreaterThanOrEqual(3);
    for (const { digest } of chain) expect(store.find("a", [digest])).toBeUndefined();
  });

  test("one that is larger than all there is leaves at once", async () => {
    const store = new MemoryStore({ maxBytes: 1_000 });
    expect(store.commit(turnOf(await artifacts.one(sized("x "))))).toBe("committed");
    expect(store.stats()).toMatchObject({ artifacts: 0, evictions: 1 });
    expect(store.load("a", "c")).toEqual({ version: 1, tip: undefined });
    expect(store.delete("a", "c")).toBe(true);
    expect(store.stats()).toMatchObject({ conversations: 0, bytes: 0 });
  });

  test("a salt outlives all that is evicted", async () => {
    const store = new MemoryStore({ maxBytes: 1_000 });
    const salt = store.salt("a", "engines");
    store.commit(turnOf(await artifacts.one(sized("x "))));
    store.delete("a", "c");
    expect(store.salt("a", "engines")).toBe(salt);
  });

  test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])("%d bytes are none", (maxBytes) => {
    expect(() => new MemoryStore({ maxBytes })).toThrow(
      expect.objectContaining({ code: "PS_INVALID_ARGUMENT" }),
    );
  });
});

test("what was recorded is what is given", async () => {
  const store = new MemoryStore();
  const artifact = await artifacts.one("One?");
  store.commit(turnOf(artifact));
  expect(store.load("a", "c")?.tip?.content).toBe(artifact);
  expect(store.find("a", [artifact.digest])?.content).toBe(artifact);
});

test("what has expired leaves with the next turn", async () => {
  const store = new MemoryStore();
  store.commit(turnOf(await artifacts.one("One?"), { expires: Date.now() + 1_000 }));
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 1_001 });
  store.commit(turnOf(await artifacts.one("Two?"), { conversation: "d" }));
  expect(store.stats()).toMatchObject({ artifacts: 1, evictions: 1 });
  expect(store.load("a", "c")).toEqual({ version: 1, tip: undefined });
});

test("a clock that jumps back moves no conversation into the past", async () => {
  const store = new MemoryStore();
  const [first, second] = (await artifacts.chain(["One?", "Two?"])) as [Artifact, Artifact];
  store.commit(turnOf(first));
  const before = store.list("a")[0]?.updated as number;
  vi.useFakeTimers({ toFake: ["Date"], now: before - 3_600_000 });
  expect(store.commit(turnOf(second, { version: 1 }))).toBe("committed");
  expect(store.list("a")[0]?.updated).toBe(before);
});

test("random turns, deletions and evictions, and the counts still add up to nothing", async () => {
  const store = new MemoryStore({ maxBytes: 60_000 });
  const chains = await Promise.all(
    ["a", "b", "c", "d"].map((name) => artifacts.chain([sized(name), "Two?", `${name}?`])),
  );
  let state = 7;
  const below = (limit: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % limit;
  };
  const names = ["p", "q", "r", undefined];
  for (let turn = 0; turn < 2_000; turn++) {
    const artifact = chains[below(4)]?.[below(3)] as Artifact;
    const conversation = names[below(4)];
    const tenant = ["a", "b"][below(2)] as string;
    if (below(10) === 0 && conversation !== undefined) store.delete(tenant, conversation);
    if (below(50) === 0) store.deleteTenant(tenant);
    const version = conversation === undefined ? 0 : (store.load(tenant, conversation)?.version ?? 0);
    store.commit(turnOf(artifact, { tenant, conversation, version, toolRound: below(3) === 0 }));
    expect(store.stats().bytes).toBeLessThanOrEqual(60_000);
  }
  for (const tenant of ["a", "b"]) store.deleteTenant(tenant);
  expect(store.stats()).toMatchObject({ conversations: 0, artifacts: 0, bytes: 0 });
});
