/** What every store must do, as cases for any test runner. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Artifact, Commit, Entry, Store } from "../store/store.ts";
import { Artifacts } from "./artifacts.ts";

/** Opens the stores that are tested. */
export interface StoreSource {
  /** A store with nothing in it. It is closed when its case is over. */
  open(): Store | Promise<Store>;
  /** What {@link open} opened last, from another process as it were; needed by the cases for stores that outlive theirs. */
  reopen?(): Store | Promise<Store>;
}

/** One promise that a store keeps. */
export interface StoreCase {
  readonly name: string;
  /** Rejects with an AssertionError, or with what the store threw. */
  run(source: StoreSource): Promise<void>;
}

/** What a case works with. */
interface Bench {
  readonly store: Store;
  readonly artifacts: Artifacts;
  /** The same data through another store. */
  reopen(): Promise<Store>;
}

const NOTHING = { conversations: 0, artifacts: 0, bytes: 0 };
/** Ids that are easily mistaken for one another, for syntax, or for members of an object. */
const UNUSUAL = [
  "",
  " ",
  "a",
  "A",
  "a ",
  "\u0000",
  "a\u0000b",
  "a\u0000c",
  "null",
  "'; drop table conversations; --",
  '"',
  "\\",
  "%",
  "_",
  "$1",
  "__proto__",
  "constructor",
  "\u00fc",
  "u\u0308",
  "\uffff",
  "\u{1f600}",
  "\u{10ffff}",
  "x".repeat(1_000),
  `${"x".repeat(999)}y`,
  "\u4e2d".repeat(1_000),
  "\u{1f600}".repeat(500),
];

/**
 * The cases that every {@link Store} passes.
 *
 * ```ts
 * for (const { name, run } of storeConformance()) test(name, () => run({ open: () => new MyStore() }));
 * ```
 *
 * @param options `durable`: also those for stores that outlive their process; the source has `reopen` then
 */
export function storeConformance({ durable = false } = {}): readonly StoreCase[] {
  const cases = durable ? { ...CASES, ...DURABLE } : CASES;
  return Object.entries(cases).map(([name, check]) => ({
    name,
    run: async (source) => {
      const artifacts = await Artifacts.create();
      const opened: Store[] = [];
      const keep = (store: Store) => {
        opened.push(store);
        return store;
      };
      const { reopen } = source;
      try {
        await check({
          artifacts,
          store: keep(await source.open()),
          reopen: async () => {
            assert.ok(reopen !== undefined, "the source of a durable store has reopen");
            return keep(await reopen());
          },
        });
      } finally {
        for (const store of opened) await store.close();
        artifacts.close();
      }
    },
  }));
}

/** A turn that begins conversation `c` of tenant `a`, but for what is said otherwise. */
function turnOf(artifact: Artifact, more: Partial<Commit> = {}): Commit {
  return {
    tenant: "a",
    conversation: "c",
    artifact,
    expires: Number.POSITIVE_INFINITY,
    version: 0,
    toolRound: false,
    turn: randomUUID(),
    ...more,
  };
}

/** Records states that went on from one another, as the turns of one conversation. */
async function record(store: Store, chain: readonly Artifact[], more: Partial<Commit> = {}): Promise<void> {
  for (const [version, artifact] of chain.entries()) {
    assert.equal(await store.commit(turnOf(artifact, { version, ...more })), "committed");
  }
}

async function expectEntry(
  { artifacts }: Bench,
  entry: Entry | undefined,
  expected: Artifact,
  tenant = "a",
): Promise<void> {
  assert.ok(entry !== undefined, "the store has it");
  assert.equal(entry.id, expected.id);
  const artifact = await artifacts.of(entry, tenant);
  assert.deepEqual(
    [artifact.id, artifact.parent, artifact.digest, artifact.messages, artifact.tokens, artifact.answer()],
    [expected.id, expected.parent, expected.digest, expected.messages, expected.tokens, expected.answer()],
  );
}

async function expectTip(
  bench: Bench,
  version: number,
  tip: Artifact | undefined,
  { tenant = "a", conversation = "c" } = {},
): Promise<void> {
  const checkpoint = await bench.store.load(tenant, conversation);
  assert.equal(checkpoint?.version, version);
  if (tip === undefined) assert.equal(checkpoint.tip, undefined);
  else await expectEntry(bench, checkpoint.tip, tip, tenant);
}

async function expectNothing({ store }: Bench): Promise<void> {
  const { conversations, artifacts, bytes } = await store.stats();
  assert.deepEqual({ conversations, artifacts, bytes }, NOTHING);
}

async function idsOf(
  store: Store,
  tenant: string,
  options?: Parameters<Store["list"]>[1],
): Promise<string[]> {
  return (await store.list(tenant, options)).map(({ conversation }) => conversation);
}

const CASES: Readonly<Record<string, (bench: Bench) => Promise<void>>> = {
  "what is recorded is found by its conversation and by its history": async (bench) => {
    const { store, artifacts } = bench;
    const chain = await artifacts.chain(["One?", "Two?", "Three?"]);
    for (const [version, artifact] of chain.entries()) {
      assert.equal(await store.commit(turnOf(artifact, { version })), "committed");
      await expectTip(bench, version + 1, artifact);
    }
    for (const artifact of chain)
      await expectEntry(bench, await store.find("a", [artifact.digest]), artifact);
  },

  "what is not there is undefined, and leaves nothing behind": async (bench) => {
    const { store } = bench;
    assert.equal(await store.load("a", "c"), undefined);
    assert.equal(await store.find("a", ["0".repeat(64)]), undefined);
    assert.equal(await store.find("a", []), undefined);
    assert.equal(await store.abandon("a", "c"), false);
    assert.equal(await store.move("a", "c", "p"), false);
    assert.equal(await store.delete("a", "c"), false);
    assert.equal(await store.deleteTenant("a"), 0);
    assert.deepEqual(await store.list("a"), []);
    await expectNothing(bench);
  },

  "a turn that comes second is kept as a branch": async (bench) => {
    const { store, artifacts } = bench;
    const [first, second] = (await artifacts.chain(["One?", "Two?"])) as [Artifact, Artifact];
    const other = await artifacts.one("Else?");
    await record(store, [first]);
    assert.equal(await store.commit(turnOf(other, { version: 0 })), "branched");
    await expectTip(bench, 1, first);
    assert.equal(await store.commit(turnOf(second, { version: 1 })), "committed");
    assert.equal(await store.commit(turnOf(other, { version: 7 })), "branched");
    await expectTip(bench, 2, second);
    await expectEntry(bench, await store.find("a", [other.digest]), other);
  },

  "a turn of a conversation that was deleted meanwhile is a branch, and no conversation": async (bench) => {
    const { store, artifacts } = bench;
    assert.equal(await store.commit(turnOf(await artifacts.one("One?"), { version: 3 })), "branched");
    assert.equal(await store.load("a", "c"), undefined);
    assert.deepEqual(await store.list("a"), []);
  },

  "a turn that is recorded again gives what the first time gave": async (bench) => {
    const { store, artifacts } = bench;
    const [first, second] = (await artifacts.chain(["One?", "Two?"])) as [Artifact, Artifact];
    const moved = turnOf(first);
    const late = turnOf(await artifacts.one("Else?"));
    for (let time = 0; time < 3; time++) assert.equal(await store.commit(moved), "committed");
    for (let time = 0; time < 3; time++) assert.equal(await store.commit(late), "branched");
    await record(store, [second], { version: 1 });
    assert.equal(await store.commit(moved), "committed");
    assert.equal(await store.commit(late), "branched");
    await expectTip(bench, 2, second);
    assert.equal((await store.stats()).artifacts, 3);
  },

  "a turn that is recorded several times at once is recorded once": async (bench) => {
    const { store, artifacts } = bench;
    const artifact = await artifacts.one("One?");
    for (const conversation of ["c", undefined]) {
      const commit = turnOf(artifact, { conversation });
      const all = await Promise.all(Array.from({ length: 8 }, async () => store.commit(commit)));
      assert.deepEqual(new Set(all), new Set(["committed"]));
    }
    await expectTip(bench, 1, artifact);
    assert.equal((await store.stats()).artifacts, 1);
  },

  "of turns that would move a conversation at once exactly one does": async (bench) => {
    const { store, artifacts } = bench;
    for (const version of [0, 1, 2]) {
      const states = await Promise.all(
        Array.from({ length: 12 }, (_, at) => artifacts.one(`Turn ${version}, client ${at}?`)),
      );
      const all = await Promise.all(
        states.map(async (artifact) => ({
          artifact,
          status: await store.commit(turnOf(artifact, { version })),
        })),
      );
      const moved = all.filter(({ status }) => status === "committed");
      assert.equal(moved.length, 1);
      await expectTip(bench, version + 1, moved[0]?.artifact);
      for (const { artifact } of all) {
        await expectEntry(bench, await store.find("a", [artifact.digest]), artifact);
      }
    }
  },

  "a turn of no conversation is found by its history only": async (bench) => {
    const { store, artifacts } = bench;
    const artifact = await artifacts.one("One?");
    assert.equal(await store.commit(turnOf(artifact, { conversation: undefined })), "committed");
    await expectEntry(bench, await store.find("a", [artifact.digest]), artifact);
    assert.deepEqual(await store.list("a"), []);
    assert.equal((await store.stats()).conversations, 0);
  },

  "a tool round is the tip until its answer is recorded": async (bench) => {
    const { store, artifacts } = bench;
    const [first, round, answer] = (await artifacts.chain(["One?", "Two?", "Three?"])) as [
      Artifact,
      Artifact,
      Artifact,
    ];
    await record(store, [first]);
    await record(store, [round], { version: 1, toolRound: true });
    await expectTip(bench, 2, round);
    assert.deepEqual(
      (await store.list("a")).map(({ toolRound, version }) => ({ toolRound, version })),
      [{ toolRound: true, version: 2 }],
    );
    await record(store, [answer], { version: 2 });
    await expectTip(bench, 3, answer);
    assert.equal(await store.abandon("a", "c"), false);
    await expectTip(bench, 3, answer);
  },

  "an abandoned tool round gives way to the head": async (bench) => {
    const { store, artifacts } = bench;
    const [first, round, answer] = (await artifacts.chain(["One?", "Two?", "Three?"])) as [
      Artifact,
      Artifact,
      Artifact,
    ];
    await record(store, [first]);
    await record(store, [round], { version: 1, toolRound: true });
    assert.equal(await store.abandon("a", "c"), true);
    assert.equal(await store.abandon("a", "c"), false);
    await expectTip(bench, 3, first);
    // Planned on the round, before it was abandoned.
    assert.equal(await store.commit(turnOf(answer, { version: 2 })), "branched");
    await expectTip(bench, 3, first);
    await expectEntry(bench, await store.find("a", [round.digest]), round);
  },

  "an abandoned round that began its conversation leaves it without a tip": async (bench) => {
    const { store, artifacts } = bench;
    await record(store, [await artifacts.one("One?")], { toolRound: true });
    assert.equal(await store.abandon("a", "c"), true);
    await expectTip(bench, 2, undefined);
  },

  "the first digest that is there wins": async (bench) => {
    const { store, artifacts } = bench;
    const chain = await artifacts.chain(["One?", "Two?", "Three?"]);
    await record(store, chain);
    const longestFirst = chain.map(({ digest }) => digest).reverse();
    for (let from = 0; from < chain.length; from++) {
      const digests = ["0".repeat(64), ...longestFirst.slice(from)];
      await expectEntry(bench, await store.find("a", digests), chain[chain.length - 1 - from] as Artifact);
    }
  },

  "of one history the newest answer is found": async (bench) => {
    const { store, artifacts } = bench;
    const answers: Artifact[] = [];
    for (const answer of ["This.", "That.", "Else."]) answers.push(await artifacts.one("One?", { answer }));
    for (const artifact of answers) {
      await store.commit(turnOf(artifact, { conversation: undefined }));
      await expectEntry(bench, await store.find("a", [artifact.digest]), artifact);
    }
    assert.equal(new Set(answers.map(({ digest }) => digest)).size, 1);
  },

  "a thousand digests are looked up at once, and no more": async (bench) => {
    const { store, artifacts } = bench;
    const artifact = await artifacts.one("One?");
    await record(store, [artifact]);
    const others = Array.from({ length: 999 }, (_, at) => at.toString(16).padStart(64, "0"));
    await expectEntry(bench, await store.find("a", [...others, artifact.digest]), artifact);
    assert.equal(await store.find("a", [...others, "f".repeat(64)]), undefined);
    await assert.rejects(async () => store.find("a", [...others, artifact.digest, artifact.digest]), {
      code: "PS_INVALID_ARGUMENT",
    });
  },

  "records behind a known artifact are enough": async (bench) => {
    const { store, artifacts } = bench;
    const chain = await artifacts.chain(["One?", "Two?", "Three?", "Four?"]);
    const last = chain[3] as Artifact;
    await record(store, chain);
    for (const known of chain) {
      for (const entry of [
        (await store.load("a", "c", known.id))?.tip,
        await store.find("a", [last.digest], known.id),
      ]) {
        assert.ok(entry !== undefined);
        assert.equal(entry.id, last.id);
        assert.equal((await artifacts.of(entry, "a", known)).id, last.id);
      }
    }
  },

  "a known artifact that is no ancestor changes nothing": async (bench) => {
    const { store, artifacts } = bench;
    const chain = await artifacts.chain(["One?", "Two?", "Three?"]);
    const branch = (await artifacts.chain(["One?", "Else?"]))[1] as Artifact;
    await record(store, chain);
    assert.equal(await store.commit(turnOf(branch, { version: 1 })), "branched");
    const second = chain[1] as Artifact;
    for (const known of [branch.id, (chain[2] as Artifact).id, "0".repeat(64)]) {
      await expectEntry(bench, await store.find("a", [second.digest], known), second);
    }
  },

  "a turn whose parent is not there is refused, or whole": async (bench) => {
    const { store, artifacts } = bench;
    const [, second] = (await artifacts.chain(["One?", "Two?"])) as [Artifact, Artifact];
    let refused = false;
    try {
      await store.commit(turnOf(second));
    } catch (error) {
      assert.equal((error as { code?: string }).code, "PS_STORE");
      refused = true;
    }
    const entry = await store.find("a", [second.digest]);
    if (!refused) return expectEntry(bench, entry, second);
    assert.equal(entry, undefined);
    assert.equal(await store.load("a", "c"), undefined);
    await expectNothing(bench);
  },

  "a conversation of 200 turns": async (bench) => {
    const { store, artifacts } = bench;
    const chain = await artifacts.chain(Array.from({ length: 200 }, (_, at) => `Question ${at}?`));
    await record(store, chain);
    const last = chain[199] as Artifact;
    await expectTip(bench, 200, last);
    await expectEntry(
      bench,
      await store.find("a", [(chain[100] as Artifact).digest]),
      chain[100] as Artifact,
    );
    assert.equal(last.messages, 399);
    assert.equal((await store.stats()).artifacts, 200);
  },

  "an artifact that is recorded again has the time it was given last": async (bench) => {
    const { store, artifacts } = bench;
    const artifact = await artifacts.one("One?");
    const times = [Date.now() + 3_600_000, Number.POSITIVE_INFINITY, Date.now() + 7_200_000];
    for (const [version, expires] of times.entries()) {
      await record(store, [artifact], { version, expires });
      assert.equal((await store.load("a", "c"))?.tip?.expires, expires);
    }
    assert.equal((await store.stats()).artifacts, 1);
  },

  "what has expired leaves, and its conversation is remembered": async (bench) => {
    const { store, artifacts } = bench;
    const expires = Date.now() + 1_000;
    const chain = await artifacts.chain(["One?", "Two?"]);
    const kept = await artifacts.one("Kept?");
    await record(store, chain, { expires });
    await record(store, [kept], { conversation: "kept" });
    assert.equal((await store.load("a", "c"))?.tip?.expires, expires);
    await sleep(Math.max(0, expires - Date.now()) + 50);
    assert.equal(await store.expire(), 2);
    await expectTip(bench, 2, undefined);
    for (const { digest } of chain) assert.equal(await store.find("a", [digest]), undefined);
    assert.equal((await store.stats()).evictions, 2);
    assert.deepEqual(
      (await store.list("a")).map(({ messages, tokens }) => [messages, tokens]),
      [
        [null, null],
        [kept.messages, kept.tokens],
      ],
    );
    await expectTip(bench, 1, kept, { conversation: "kept" });
    assert.equal(await store.expire(), 0);
  },

  "what went on from one another leaves as a whole": async (bench) => {
    const { store, artifacts } = bench;
    const [first, second] = (await artifacts.chain(["One?", "Two?"])) as [Artifact, Artifact];
    await record(store, [first]);
    await record(store, [second], { version: 1, expires: Date.now() + 20 });
    await sleep(50);
    assert.equal(await store.expire(), 0);
    await expectTip(bench, 2, second);
  },

  "a list has conversations in the order of their ids, page by page": async ({ store, artifacts }) => {
    const artifact = await artifacts.one("One?");
    const ids = ["b", "a", "", "ab", "\uffff", "\u{1f600}", "\u00fc", "B", ...numbered(30)];
    for (const conversation of ids) await record(store, [artifact], { conversation });
    const inOrder = [...ids].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    assert.deepEqual(await idsOf(store, "a"), inOrder);
    for (const limit of [1, 7, 1_000]) {
      const pages: string[] = [];
      let after: string | undefined;
      for (;;) {
        const page = await idsOf(store, "a", { limit, ...(after === undefined ? {} : { after }) });
        assert.ok(page.length <= limit);
        if (page.length === 0) break;
        pages.push(...page);
        after = page.at(-1);
      }
      assert.deepEqual(pages, inOrder);
    }
    assert.deepEqual(await idsOf(store, "a", { after: "conversation 03!" }), [
      ...inOrder.filter((id) => Buffer.compare(Buffer.from(id), Buffer.from("conversation 03!")) > 0),
    ]);
  },

  "a list has a hundred conversations unless more are asked for": async ({ store, artifacts }) => {
    const artifact = await artifacts.one("One?");
    for (const conversation of numbered(103)) await record(store, [artifact], { conversation });
    assert.equal((await store.list("a")).length, 100);
    assert.equal((await store.list("a", { limit: 1_000 })).length, 103);
  },

  "a list tells where conversations stand": async ({ store, artifacts }) => {
    const before = Date.now();
    const chain = await artifacts.chain(["One?", "Two?"]);
    const last = chain[1] as Artifact;
    await record(store, chain);
    await record(store, chain, { conversation: "d", project: "p", toolRound: true });
    const all = await store.list("a");
    for (const { updated } of all) assert.ok(Math.abs(updated - before) < 60_000);
    const standing = { version: 2, messages: last.messages, tokens: last.tokens };
    assert.deepEqual(
      all.map(({ updated, ...rest }) => rest),
      [
        { conversation: "c", project: "", toolRound: false, ...standing },
        { conversation: "d", project: "p", toolRound: true, ...standing },
      ],
    );
  },

  "a conversation is of one project, until it is moved to another": async (bench) => {
    const { store, artifacts } = bench;
    const chain = await artifacts.chain(["One?", "Two?", "Three?"]);
    await record(store, chain.slice(0, 2), { project: "p" });
    assert.deepEqual(await idsOf(store, "a", { project: "p" }), ["c"]);
    assert.deepEqual(await idsOf(store, "a", { project: "" }), []);
    assert.equal(await store.move("a", "c", "q"), true);
    assert.equal(await store.move("b", "c", "q"), false);
    assert.deepEqual(await idsOf(store, "a", { project: "p" }), []);
    assert.deepEqual(await idsOf(store, "a", { project: "q" }), ["c"]);
    await expectTip(bench, 2, chain[1] as Artifact);
    // Only a conversation that a turn begins goes where the turn says.
    await record(store, chain.slice(2), { version: 2, project: "p" });
    assert.deepEqual(await idsOf(store, "a", { project: "q" }), ["c"]);
    await expectTip(bench, 3, chain[2] as Artifact);
    assert.equal(await store.delete("a", "c"), true);
    await expectNothing(bench);
  },

  "deleting a conversation leaves nothing of it": async (bench) => {
    const { store, artifacts } = bench;
    const chain = await artifacts.chain(["One?", "Two?", "Three?"]);
    const branch = await artifacts.one("Branch?");
    const edited = await artifacts.one("Edited?");
    await record(store, chain);
    await store.commit(turnOf(branch, { version: 1 }));
    await record(store, [edited], { version: 3, toolRound: true });
    assert.equal(await store.delete("a", "c"), true);
    assert.equal(await store.delete("a", "c"), false);
    assert.equal(await store.load("a", "c"), undefined);
    for (const { digest } of [...chain, branch, edited]) {
      assert.equal(await store.find("a", [digest]), undefined);
    }
    await expectNothing(bench);
    await record(store, chain);
    await expectTip(bench, 3, chain[2] as Artifact);
  },

  "what two conversations went through outlives one of them": async (bench) => {
    const { store, artifacts } = bench;
    const [first, second] = (await artifacts.chain(["One?", "Two?"])) as [Artifact, Artifact];
    const branch = (await artifacts.chain(["One?", "Else?"]))[1] as Artifact;
    await record(store, [first, second]);
    await record(store, [branch], { conversation: "d" });
    assert.equal(await store.delete("a", "c"), true);
    await expectTip(bench, 1, branch, { conversation: "d" });
    await expectEntry(bench, await store.find("a", [first.digest]), first);
    assert.equal(await store.delete("a", "d"), true);
    await expectNothing(bench);
  },

  "deleting a tenant leaves nothing of it, and the others": async (bench) => {
    const { store, artifacts } = bench;
    const texts = ["One?", "Two?"];
    const chains = { a: await artifacts.chain(texts), b: await artifacts.chain(texts, { tenant: "b" }) };
    for (const [tenant, chain] of Object.entries(chains)) {
      await record(store, chain, { tenant });
      await record(store, chain.slice(0, 1), { tenant, conversation: "d" });
      const [, other] = await artifacts.chain(["Other?", "Two?"], { tenant });
      await assert.doesNotReject(async () => {
        const parent = await artifacts.one("Other?", { tenant });
        await record(store, [parent], { tenant, conversation: undefined });
        await record(store, [other as Artifact], { tenant, conversation: undefined });
      });
    }
    assert.equal(await store.deleteTenant("a"), 4);
    assert.equal(await store.deleteTenant("a"), 0);
    assert.deepEqual(await store.list("a"), []);
    for (const { digest } of chains.a) assert.equal(await store.find("a", [digest]), undefined);
    await expectTip(bench, 2, chains.b[1], { tenant: "b" });
    assert.equal(await store.deleteTenant("b"), 4);
    await expectNothing(bench);
  },

  "tenants see nothing of each other's": async (bench) => {
    const { store, artifacts } = bench;
    const tenants = ["a", "b", "", "A", "a "];
    const states = new Map<string, Artifact>();
    for (const tenant of tenants) states.set(tenant, await artifacts.one("One?", { tenant }));
    const mine = states.get("a") as Artifact;
    await record(store, [mine]);
    for (const tenant of tenants.slice(1)) {
      assert.equal(await store.load(tenant, "c"), undefined);
      assert.equal(await store.find(tenant, [mine.digest]), undefined);
      assert.deepEqual(await store.list(tenant), []);
      assert.equal(await store.abandon(tenant, "c"), false);
      assert.equal(await store.move(tenant, "c", "p"), false);
      assert.equal(await store.delete(tenant, "c"), false);
      assert.equal(await store.deleteTenant(tenant), 0);
    }
    for (const tenant of tenants.slice(1)) await record(store, [states.get(tenant) as Artifact], { tenant });
    for (const tenant of tenants) {
      const artifact = states.get(tenant) as Artifact;
      await expectTip(bench, 1, artifact, { tenant });
      await expectEntry(bench, await store.find(tenant, [mine.digest]), artifact, tenant);
    }
    assert.equal((await store.stats()).artifacts, tenants.length);
  },

  "a salt stays what it is, for one tenant and domain": async ({ store }) => {
    const salts = new Map<string, string>();
    const names = ["", "a", "b", "a\u0000b"];
    const pairs = names.flatMap((tenant) => names.map((domain) => ({ tenant, domain })));
    for (const { tenant, domain } of pairs) {
      const [salt, ...others] = await Promise.all(
        Array.from({ length: 4 }, async () => store.salt(tenant, domain)),
      );
      for (const other of others) assert.equal(other, salt);
      salts.set(JSON.stringify([tenant, domain]), salt as string);
    }
    assert.equal(new Set(salts.values()).size, pairs.length);
    for (const { tenant, domain } of pairs) {
      assert.equal(await store.salt(tenant, domain), salts.get(JSON.stringify([tenant, domain])));
    }
  },

  "a salt cannot be guessed, and is gone with its tenant": async (bench) => {
    const { store } = bench;
    const seen = new Set<string>();
    for (let time = 0; time < 20; time++) {
      const salt = await store.salt("a", "engines");
      assert.match(salt, /^[\w-]{43}$/, "32 bytes in base64url");
      seen.add(salt);
      await store.deleteTenant("a");
    }
    assert.equal(seen.size, 20);
    await expectNothing(bench);
  },

  "ids may be any text of up to a thousand characters": async (bench) => {
    const { store, artifacts } = bench;
    const artifact = await artifacts.one("One?");
    for (const id of UNUSUAL) {
      await record(store, [artifact], { conversation: id, project: id, turn: id });
    }
    for (const id of UNUSUAL) {
      await expectTip(bench, 1, artifact, { conversation: id });
      assert.deepEqual(await idsOf(store, "a", { project: id }), [id]);
    }
    assert.equal((await store.list("a")).length, UNUSUAL.length);
    assert.deepEqual(new Set((await store.list("a")).map(({ project }) => project)), new Set(UNUSUAL));
    for (const id of UNUSUAL) assert.equal(await store.delete("a", id), true);
    await expectNothing(bench);
  },

  "tenants may have any name of up to a thousand characters": async (bench) => {
    const { store, artifacts } = bench;
    const states = new Map<string, Artifact>();
    for (const tenant of UNUSUAL) states.set(tenant, await artifacts.one("One?", { tenant }));
    const digest = states.get("a")?.digest as string;
    for (const [tenant, artifact] of states)
      await record(store, [artifact], { tenant, conversation: tenant });
    for (const [tenant, artifact] of states) {
      await expectTip(bench, 1, artifact, { tenant, conversation: tenant });
      await expectEntry(bench, await store.find(tenant, [digest]), artifact, tenant);
    }
    for (const tenant of UNUSUAL) assert.equal(await store.deleteTenant(tenant), 1);
    await expectNothing(bench);
  },

  "ids that cannot be told apart are refused": async ({ store, artifacts }) => {
    const artifact = await artifacts.one("One?");
    const refused = { code: "PS_INVALID_ARGUMENT" };
    for (const id of ["\ud800", "a\udc00", "x".repeat(5_000)]) {
      await assert.rejects(async () => store.commit(turnOf(artifact, { conversation: id })), refused);
      await assert.rejects(async () => store.commit(turnOf(artifact, { project: id })), refused);
      await assert.rejects(async () => store.load("a", id), refused);
      await assert.rejects(async () => store.salt(id, "d"), refused);
      await assert.rejects(async () => store.salt("a", id), refused);
    }
  },

  "lookups are counted": async ({ store, artifacts }) => {
    const artifact = await artifacts.one("One?");
    await record(store, [artifact]);
    const before = await store.stats();
    await store.find("a", [artifact.digest]);
    await store.load("a", "c");
    await store.find("a", ["0".repeat(64)]);
    await store.load("a", "unknown");
    const { conversations, artifacts: kept, bytes, hits, misses, refused } = await store.stats();
    assert.deepEqual(
      { conversations, kept, hits: hits - before.hits, misses: misses - before.misses, refused },
      { conversations: 1, kept: 1, hits: 2, misses: 2, refused: 0 },
    );
    assert.ok(bytes > 100);
  },

  "a closed store answers nothing": async ({ store, artifacts }) => {
    const artifact = await artifacts.one("One?");
    await record(store, [artifact]);
    await store.close();
    await store.close();
    const calls = [
      () => store.load("a", "c"),
      () => store.find("a", [artifact.digest]),
      () => store.commit(turnOf(artifact)),
      () => store.abandon("a", "c"),
      () => store.list("a"),
      () => store.move("a", "c", "p"),
      () => store.delete("a", "c"),
      () => store.deleteTenant("a"),
      () => store.expire(),
      () => store.salt("a", "d"),
      () => store.stats(),
    ];
    for (const call of calls) await assert.rejects(async () => call(), { code: "PS_CLOSED" });
  },

  "what is under way when a store is closed is finished": async ({ store, artifacts }) => {
    const artifact = await artifacts.one("One?");
    await record(store, [artifact]);
    const loading = Promise.resolve(store.load("a", "c"));
    const closing = Promise.resolve(store.close());
    assert.equal((await loading)?.version, 1);
    await closing;
  },
};

const DURABLE: typeof CASES = {
  "a store that is opened again has everything": async (bench) => {
    const { store, artifacts } = bench;
    const chain = await artifacts.chain(["One?", "Two?"]);
    const round = await artifacts.one("Round?");
    const last = turnOf(round, { version: 2, toolRound: true });
    await record(store, chain, { project: "p" });
    assert.equal(await store.commit(last), "committed");
    const salt = await store.salt("a", "engines");
    const list = await store.list("a");
    const { conversations, artifacts: kept, bytes } = await store.stats();
    await store.close();

    const again = { ...bench, store: await bench.reopen() };
    await expectTip(again, 3, round);
    for (const artifact of chain) {
      await expectEntry(again, await again.store.find("a", [artifact.digest]), artifact);
    }
    assert.deepEqual(await again.store.list("a"), list);
    assert.equal(await again.store.salt("a", "engines"), salt);
    assert.equal(await again.store.commit(last), "committed");
    const stats = await again.store.stats();
    assert.deepEqual([stats.conversations, stats.artifacts, stats.bytes], [conversations, kept, bytes]);
    await expectTip(again, 3, round);
  },

  "two stores on the same data see each other's turns": async (bench) => {
    const { store, artifacts } = bench;
    const other = { ...bench, store: await bench.reopen() };
    const chain = await artifacts.chain(Array.from({ length: 10 }, (_, at) => `Question ${at}?`));
    for (const [version, artifact] of chain.entries()) {
      const [here, there] = version % 2 === 0 ? [bench, other] : [other, bench];
      assert.equal(await here.store.commit(turnOf(artifact, { version })), "committed");
      await expectTip(there, version + 1, artifact);
    }
    assert.equal(await store.salt("a", "d"), await other.store.salt("a", "d"));
  },
};

function numbered(count: number): string[] {
  return Array.from({ length: count }, (_, at) => `conversation ${String(at).padStart(3, "0")}`);
}
