/** The store in memory: what it keeps, what it gives up, and to whom it shows it. */

import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { type ChatMessage, type Commit, MemoryStore, type Model, Seam } from "../../ts/index.ts";
import { assistant, BARE, NOW, OddStore, user } from "./support.ts";
import { tinyModel } from "./tiny-model.ts";

let model: Model;
beforeAll(async () => {
  model = await tinyModel();
});
afterAll(() => model.close());
afterEach(() => vi.useRealTimers());

/** Keeps what a Seam commits. */
class Recording extends OddStore {
  last!: Commit;

  override commit(commit: Commit) {
    this.last = commit;
    return super.commit(commit);
  }
}

/** Commits of turns that went on from one another, as a Seam makes them. */
async function commits(texts: readonly string[], tenant = "a"): Promise<Commit[]> {
  const store = new Recording(new MemoryStore());
  const seam = new Seam({ model, store, ...BARE });
  const messages: ChatMessage[] = [];
  const all: Commit[] = [];
  for (const text of texts) {
    messages.push(user(text));
    const turn = await seam.prepare({ messages }, { now: NOW, tenant, conversation: "c" });
    const message = assistant("ok");
    await turn.commit({ message });
    messages.push(message);
    all.push(store.last);
  }
  return all;
}

async function one(text: string, more: Partial<Commit> = {}): Promise<Commit> {
  const [commit] = await commits([text]);
  return { ...(commit as Commit), ...more };
}

const sized = (text: string) => text.repeat(2_000);

describe("bounds", () => {
  test("what is held stays within them, and is told to the byte", async () => {
    const maxBytes = 100_000;
    const store = new MemoryStore({ maxBytes });
    for (let at = 0; at < 40; at++) {
      store.commit(await one(sized(`${at} `), { conversation: `c${at}` }));
      expect(store.stats().bytes).toBeLessThanOrEqual(maxBytes);
    }
    const { artifacts, evictions } = store.stats();
    expect(artifacts).toBeGreaterThan(1);
    expect(artifacts + evictions).toBe(40);
  });

  test("the least recently used leave first", async () => {
    const [a, b, c] = await Promise.all(["a ", "b ", "c "].map((text) => one(sized(text))));
    const need = (commit: Commit | undefined) => (commit?.entry.artifact.bytes ?? 0) + 1_400;
    const store = new MemoryStore({ maxBytes: Math.ceil(2.2 * need(a)) });
    store.commit({ ...(a as Commit), conversation: "a" });
    store.commit({ ...(b as Commit), conversation: "b" });
    // Looked at, so that it is not the oldest any more.
    expect(store.load("a", "a")?.tip).toBeDefined();
    store.commit({ ...(c as Commit), conversation: "c" });
    const held = (name: string) => store.load("a", name)?.tip !== undefined;
    expect(["a", "b", "c"].map(held)).toEqual([true, false, true]);
    expect(store.stats().evictions).toBe(1);
  });

  test("a conversation whose artifacts left is remembered, until there are too many of these", async () => {
    const store = new MemoryStore({ maxBytes: 20_000 });
    for (let at = 0; at < 200; at++) store.commit(await one(sized("x "), { conversation: `c${at}` }));
    const { conversations, artifacts, bytes } = store.stats();
    expect(artifacts).toBeLessThanOrEqual(1);
    expect(conversations).toBeGreaterThan(10);
    expect(conversations).toBeLessThan(60);
    expect(bytes).toBeLessThanOrEqual(20_000);
    expect(store.load("a", "c199")).toMatchObject({ version: 1 });
    expect(store.load("a", "c0")).toBeUndefined();
  });

  test("artifacts that went on from one another leave together", async () => {
    const chain = await commits(["One?", "Two?", "Three?"]);
    const store = new MemoryStore({ maxBytes: 40_000 });
    for (const [version, commit] of chain.entries()) store.commit({ ...commit, version });
    expect(store.stats().artifacts).toBe(3);
    for (let at = 0; at < 10; at++) {
      store.commit(await one(sized(`${at} `), { conversation: `other ${at}` }));
    }
    expect(store.stats().evictions).toBeGreaterThanOrEqual(3);
    for (const { entry } of chain) expect(store.find("a", [entry.artifact.digest])).toBeUndefined();
  });

  test("one that is larger than all there is leaves at once", async () => {
    const store = new MemoryStore({ maxBytes: 1_000 });
    expect(store.commit(await one(sized("x ")))).toBe("committed");
    expect(store.stats()).toMatchObject({ artifacts: 0, evictions: 1 });
    expect(store.load("a", "c")).toEqual({ version: 1, tip: undefined });
  });

  test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])("%d bytes are none", (maxBytes) => {
    expect(() => new MemoryStore({ maxBytes })).toThrow(
      expect.objectContaining({ code: "PS_INVALID_ARGUMENT" }),
    );
  });
});

describe("finding", () => {
  test("the first digest that is there, and of that the newest", async () => {
    const [first, second] = (await commits(["One?", "Two?"])) as [Commit, Commit];
    const store = new MemoryStore();
    store.commit(first);
    store.commit({ ...second, version: 1 });
    const digests = [second, first].map(({ entry }) => entry.artifact.digest);
    expect(store.find("a", ["0".repeat(64), ...digests])).toBe(second.entry);
    expect(store.find("a", digests.slice(1))).toBe(first.entry);

    const again = await one("One?");
    const other = {
      ...again,
      entry: { ...again.entry, artifact: (await answered("Another.")).entry.artifact },
    };
    expect(other.entry.artifact.digest).toBe(first.entry.artifact.digest);
    store.commit({ ...other, version: 2 });
    expect(store.find("a", digests.slice(1))).toBe(other.entry);
  });

  async function answered(text: string): Promise<Commit> {
    const store = new Recording(new MemoryStore());
    const turn = await new Seam({ model, store, ...BARE }).prepare(
      { messages: [user("One?")] },
      { now: NOW, tenant: "a" },
    );
    await turn.commit({ message: assistant(text) });
    return store.last;
  }

  test("hits and misses are counted", async () => {
    const store = new MemoryStore();
    const commit = await one("One?");
    store.commit(commit);
    store.find("a", [commit.entry.artifact.digest]);
    store.find("a", ["0".repeat(64)]);
    store.find("a", []);
    store.load("a", "c");
    store.load("a", "unknown");
    expect(store.stats()).toMatchObject({ hits: 2, misses: 3 });
  });

  test("an artifact that is committed again has the time it was given last", async () => {
    const store = new MemoryStore();
    const commit = await one("One?");
    const until = (ms: number) => ({ ...commit.entry, expires: Date.now() + ms });
    store.commit({ ...commit, entry: until(1_000), version: 0, turn: "1" });
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 1_001 });
    const renewed = until(1_000);
    store.commit({ ...commit, entry: renewed, version: 1, turn: "2" });
    expect(store.find("a", [commit.entry.artifact.digest])?.expires).toBe(renewed.expires);
    expect(store.load("a", "c")).toEqual({ version: 2, tip: renewed });
  });
});

describe("tenants", () => {
  test("see nothing of each other's", async () => {
    const store = new MemoryStore();
    const commit = await one("One?");
    store.commit(commit);
    for (const tenant of ["b", "", "A", "a "]) {
      expect(store.load(tenant, "c")).toBeUndefined();
      expect(store.find(tenant, [commit.entry.artifact.digest])).toBeUndefined();
      expect(store.delete(tenant, "c")).toBe(false);
    }
    expect(store.load("a", "c")?.tip).toBe(commit.entry);
  });

  test("of odd names are tenants like others", async () => {
    const store = new MemoryStore();
    const names = ["__proto__", "constructor", "", "a\u0000b", "a", "b"];
    for (const tenant of names) store.commit(await one("One?", { tenant, conversation: "toString" }));
    expect(store.stats()).toMatchObject({ conversations: names.length, artifacts: names.length });
    for (const tenant of names) expect(store.load(tenant, "toString")).toMatchObject({ version: 1 });
  });
});

describe("moving a conversation", () => {
  test("only from where it was when the turn was planned", async () => {
    const store = new MemoryStore();
    const [first, second] = (await commits(["One?", "Two?"])) as [Commit, Commit];
    expect(store.commit({ ...first, version: 0, turn: "1" })).toBe("committed");
    expect(store.commit({ ...second, version: 0, turn: "2" })).toBe("branched");
    expect(store.load("a", "c")).toEqual({ version: 1, tip: first.entry });
    expect(store.commit({ ...second, version: 1, turn: "3" })).toBe("committed");
    expect(store.load("a", "c")).toEqual({ version: 2, tip: second.entry });
    expect(store.commit({ ...second, version: 7, turn: "4" })).toBe("branched");
  });

  test("once for each turn, however often it is tried", async () => {
    const store = new MemoryStore();
    const commit = await one("One?", { turn: "1" });
    for (let time = 0; time < 3; time++) expect(store.commit(commit)).toBe("committed");
    expect(store.load("a", "c")).toEqual({ version: 1, tip: commit.entry });
    expect(store.stats()).toMatchObject({ conversations: 1, artifacts: 1 });
  });

  test("a turn that is tried again after the one behind it moves nothing", async () => {
    const store = new MemoryStore();
    const [first, second] = (await commits(["One?", "Two?"])) as [Commit, Commit];
    store.commit({ ...first, version: 0, turn: "1" });
    store.commit({ ...second, version: 1, turn: "2" });
    store.commit({ ...first, version: 0, turn: "1" });
    expect(store.load("a", "c")).toEqual({ version: 2, tip: second.entry });
    expect(store.stats().artifacts).toBe(2);
  });

  test("a tool round stands before the head, until it is answered or over", async () => {
    const store = new MemoryStore();
    const [first, second, third] = (await commits(["One?", "Two?", "Three?"])) as [Commit, Commit, Commit];
    store.commit({ ...first, version: 0, turn: "1" });
    const round = { ...second.entry, expires: Date.now() + 1_000 };
    store.commit({ ...second, entry: round, version: 1, turn: "2", toolRound: true });
    expect(store.load("a", "c")).toEqual({ version: 2, tip: round });
    store.commit({ ...third, version: 2, turn: "3" });
    expect(store.load("a", "c")).toEqual({ version: 3, tip: third.entry });
  });

  test("no conversation is a turn of none: it is found by its history", async () => {
    const store = new MemoryStore();
    const commit = await one("One?", { conversation: undefined });
    expect(store.commit(commit)).toBe("committed");
    expect(store.stats()).toMatchObject({ conversations: 0, artifacts: 1 });
    expect(store.find("a", [commit.entry.artifact.digest])).toBe(commit.entry);
  });
});

describe("deleting leaves nothing", () => {
  const EMPTY = { conversations: 0, artifacts: 0, bytes: 0 };

  test("of a conversation with its branches, edits and rounds", async () => {
    const store = new MemoryStore();
    const chain = await commits(["One?", "Two?", "Three?"]);
    for (const [version, commit] of chain.entries()) store.commit({ ...commit, version, turn: `${version}` });
    store.commit(await one("Edited?", { version: 3, turn: "e" }));
    expect(store.delete("a", "c")).toBe(true);
    expect(store.stats()).toMatchObject(EMPTY);
    expect(store.load("a", "c")).toBeUndefined();
    for (const { entry } of chain) expect(store.find("a", [entry.artifact.digest])).toBeUndefined();
    expect(store.delete("a", "c")).toBe(false);
  });

  test("of a turn that came second and was kept beside", async () => {
    const store = new MemoryStore();
    store.commit(await one("One?", { turn: "1" }));
    expect(store.commit(await one("Another?", { turn: "2" }))).toBe("branched");
    store.delete("a", "c");
    expect(store.stats()).toMatchObject(EMPTY);
  });

  test("but what another conversation needs", async () => {
    const store = new MemoryStore();
    const commit = await one("One?");
    store.commit({ ...commit, conversation: "c", turn: "1" });
    store.commit({ ...commit, conversation: "d", turn: "2" });
    store.delete("a", "c");
    expect(store.load("a", "d")).toEqual({ version: 1, tip: commit.entry });
    store.delete("a", "d");
    expect(store.stats()).toMatchObject(EMPTY);
  });

  test("also of one whose artifacts were evicted", async () => {
    const store = new MemoryStore({ maxBytes: 1_000 });
    store.commit(await one(sized("x ")));
    expect(store.delete("a", "c")).toBe(true);
    expect(store.stats()).toMatchObject(EMPTY);
  });

  test("random commits, deletions and evictions, and the counts still add up to nothing", async () => {
    const store = new MemoryStore({ maxBytes: 60_000 });
    const chains = await Promise.all(
      ["a", "b", "c", "d"].map((name) => commits([sized(name), "Two?", `${name}?`])),
    );
    let state = 7;
    const below = (limit: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (state >>> 8) % limit;
    };
    const names = ["p", "q", "r", undefined];
    for (let turn = 0; turn < 2_000; turn++) {
      const commit = chains[below(4)]?.[below(3)] as Commit;
      const conversation = names[below(4)];
      const tenant = ["a", "b"][below(2)] as string;
      if (below(10) === 0 && conversation !== undefined) store.delete(tenant, conversation);
      const version = conversation === undefined ? 0 : (store.load(tenant, conversation)?.version ?? 0);
      store.commit({ ...commit, tenant, conversation, version, turn: `${turn}`, toolRound: below(3) === 0 });
      expect(store.stats().bytes).toBeLessThanOrEqual(60_000);
    }
    for (const tenant of ["a", "b"]) for (const name of ["p", "q", "r"]) store.delete(tenant, name);
    // What no conversation holds leaves for what comes next.
    const { conversations } = store.stats();
    expect(conversations).toBe(0);
    store.commit({ ...(await one("x".repeat(60_000))), turn: "last" });
    store.delete("a", "c");
    expect(store.stats()).toMatchObject(EMPTY);
  });
});
