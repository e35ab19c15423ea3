/** Conversations in a SQLite file: after a restart, between processes, and where the file or the disk gives trouble. */

import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { chmod, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import {
  CHANNELS,
  type ChatMessage,
  type Model,
  Seam,
  type SeamOptions,
  SqliteStore,
  type StoreTroubleEvent,
} from "../../ts/index.ts";
import { assistant, BARE, called, expectFullRender, NOW, result, user } from "../seam/support.ts";
import { tinyModel } from "../seam/tiny-model.ts";

let model: Model;
let folder: string;
let file: string;
const open: SqliteStore[] = [];

beforeAll(async () => {
  model = await tinyModel();
});
afterAll(() => model.close());
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "promptseam-sqlite-"));
  file = join(folder, "store", "conversations.db");
});
afterEach(async () => {
  vi.useRealTimers();
  await Promise.all(open.splice(0).map((store) => store.close()));
  await rm(folder, { recursive: true, force: true });
});

async function opened(
  options: Parameters<typeof SqliteStore.open>[1] = {},
  path = file,
): Promise<SqliteStore> {
  const store = await SqliteStore.open(path, options);
  open.push(store);
  return store;
}

function seamOn(store: SqliteStore, options: Partial<SeamOptions> = {}): Seam {
  return new Seam({ model, store, ...BARE, ...options });
}

const LONG = "A long question, whose words are of no matter. ".repeat(40);

/** Plays turns of a conversation and gives all its messages. */
async function play(seam: Seam, turns: number, options: { conversation?: string; tenant?: string } = {}) {
  const messages: ChatMessage[] = [];
  for (let turn = 0; turn < turns; turn++) {
    messages.push(user(`${turn} ${LONG}`));
    const prepared = await seam.prepare({ messages }, { now: NOW, conversation: "c", ...options });
    const answer = assistant(`Answer ${turn}.`);
    await expectFullRender(model, prepared, { messages });
    expect(await prepared.commit({ message: answer })).toEqual({ status: "committed" });
    messages.push(answer);
  }
  return messages;
}

/** Goes on with a conversation as after a restart. */
async function goOn(store: SqliteStore, messages: readonly ChatMessage[], options: object = {}) {
  const seam = seamOn(store);
  const next = user("And then?");
  const turn = await seam.prepare({ append: [next] }, { now: NOW, conversation: "c", ...options });
  await expectFullRender(model, turn, { messages: [...messages, next] });
  return turn;
}

describe("after a restart", () => {
  test("an append goes on with the right ids, as a certified suffix", async () => {
    const messages = await play(seamOn(await opened()), 5);
    await open.pop()?.close();
    const turn = await goOn(await opened(), messages);
    expect(turn.outcome).toEqual({ kind: "certified_suffix" });
    expect(turn.prefixLength).toBeGreaterThan(1_000);
  });

  test("a whole history is recognized", async () => {
    const messages = await play(seamOn(await opened()), 5);
    await open.pop()?.close();
    const request = { messages: [...messages, user("And then?")] };
    const turn = await seamOn(await opened()).prepare(request, { now: NOW });
    await expectFullRender(model, turn, request);
    expect(turn.outcome).toEqual({ kind: "certified_suffix" });
  });

  test("an open tool round is gone on from, and an abandoned one is not", async () => {
    const seam = seamOn(await opened());
    const messages = await play(seam, 2);
    const ask = user("What does a say?");
    const round = await seam.prepare({ append: [ask] }, { now: NOW, conversation: "c" });
    const call = called("call00001");
    await round.commit({ message: call });
    await open.pop()?.close();
    const store = await opened();
    const answered = [...messages, ask, call, result("call00001")];
    const turn = await seamOn(store).prepare(
      { append: [result("call00001")] },
      { now: NOW, conversation: "c" },
    );
    await expectFullRender(model, turn, { messages: answered });
    expect(await store.abandon("", "c")).toBe(true);
    expect(await store.abandon("", "c")).toBe(false);
    await goOn(store, messages);
    expect(await turn.commit({ message: assistant("42") })).toEqual({ status: "branched" });
  });

  test("what is not rendered here is kept too", async () => {
    const image = [{ type: "image_url", image_url: { url: "data:," } }];
    const seam = seamOn(await opened());
    const messages = [user(image as never)];
    const turn = await seam.prepare({ messages }, { now: NOW, conversation: "c" });
    expect(turn.outcome.kind).toBe("messages");
    await turn.commit({ message: assistant("A picture.") });
    await open.pop()?.close();
    const next = await seamOn(await opened()).prepare(
      { append: [user("Sure?")] },
      { now: NOW, conversation: "c" },
    );
    const body = JSON.parse((await next.body("messages")).toString());
    expect(body.messages).toEqual([...messages, assistant("A picture."), user("Sure?")]);
  });
});

describe("tenants", () => {
  test("never see each other's histories, conversations or salts", async () => {
    const store = await opened();
    const seam = seamOn(store);
    const messages = await play(seam, 2, { tenant: "a" });
    const request = { messages: [...messages, user("And then?")] };
    const theirs = await seam.prepare(request, { now: NOW, tenant: "b", conversation: "c" });
    expect(theirs.outcome).toEqual({ kind: "full_render", reason: "no_checkpoint" });
    await expect(seam.prepare({ append: [user("x")] }, { tenant: "b", conversation: "c" })).rejects.toThrow(
      expect.objectContaining({ code: "PS_CONVERSATION_UNKNOWN" }),
    );
    expect(await store.salt("a", "x")).not.toBe(await store.salt("b", "x"));
    expect(await store.tenants()).toEqual(["a", "b"]);
  });

  test("a tenant's requests have its salt, in tool rounds and after a restart too", async () => {
    const salts = new Set<unknown>();
    const saltOf = async (store: SqliteStore, messages: ChatMessage[], bytes: boolean) => {
      const request = { model: "m", messages };
      const given = bytes ? Buffer.from(JSON.stringify(request)) : request;
      const turn = await seamOn(store).prepare(given, { now: NOW, tenant: "a", conversation: "c" });
      const body = JSON.parse((await turn.body()).toString());
      salts.add(body.cache_salt);
      return turn;
    };
    const store = await opened();
    const ask = user(LONG);
    const first = await saltOf(store, [ask], false);
    const call = called("call00001");
    await first.commit({ message: call });
    const round = await saltOf(store, [ask, call, result("call00001")], true);
    expect(round.outcome).toEqual({ kind: "certified_suffix" });
    await round.commit({ message: assistant("42") });
    await open.pop()?.close();
    const later = [ask, call, result("call00001"), assistant("42"), user("x")];
    expect((await saltOf(await opened(), later, true)).outcome).toEqual({ kind: "certified_suffix" });
    expect(salts.size).toBe(1);
    const [salt] = salts;
    expect(Buffer.from(String(salt), "base64url")).toHaveLength(32);
  });

  test("a request's own salt stays, and a Seam can be told to add none", async () => {
    const store = await opened();
    const body = async (options: Partial<SeamOptions>, more: object) => {
      const request = { messages: [user("x")], ...more };
      const turn = await seamOn(store, options).prepare(request, { now: NOW, tenant: "a" });
      return JSON.parse((await turn.body()).toString());
    };
    expect((await body({}, { cache_salt: "mine" })).cache_salt).toBe("mine");
    expect(await body({ cacheDomain: false }, {})).not.toHaveProperty("cache_salt");
    const [here, there] = [await body({ cacheDomain: "here" }, {}), await body({ cacheDomain: "there" }, {})];
    expect(here.cache_salt).not.toBe(there.cache_salt);
  });
});

describe("the file", () => {
  test("is its owner's alone, as are its folder and its log", async () => {
    const store = await opened();
    await play(seamOn(store), 1);
    const modes = await Promise.all(
      (await readdir(join(folder, "store"))).map(async (name) => [
        name,
        (await stat(join(folder, "store", name))).mode & 0o777,
      ]),
    );
    expect(Object.fromEntries(modes)).toEqual({
      "conversations.db": 0o600,
      "conversations.db-wal": 0o600,
      "conversations.db-shm": 0o600,
    });
    expect((await stat(join(folder, "store"))).mode & 0o777).toBe(0o700);
  });

  async function everyByte(): Promise<Buffer> {
    const names = await readdir(join(folder, "store"));
    return Buffer.concat(await Promise.all(names.map((name) => readFile(join(folder, "store", name)))));
  }

  test("with a key holds no text and no ids of its own, and opens with that key alone", async () => {
    const key = randomBytes(32);
    const store = await opened({ key });
    const secret = "xyzzy-plugh-secret";
    const seam = seamOn(store);
    const turn = await seam.prepare(
      { messages: [user(secret)] },
      { now: NOW, conversation: "c", tenant: "a" },
    );
    await turn.commit({ message: assistant(secret) });
    const salt = await store.salt("a", "x");
    await open.pop()?.close();
    const bytes = await everyByte();
    expect(bytes.includes("conversations")).toBe(true);
    expect(bytes.includes(secret)).toBe(false);
    expect(bytes.includes(salt)).toBe(false);
    const messages = [user(secret), assistant(secret)];
    const again = await opened({ key });
    expect((await goOn(again, messages, { tenant: "a" })).outcome).toEqual({ kind: "certified_suffix" });
    expect(await again.salt("a", "x")).toBe(salt);
    const wrong = await opened({ key: randomBytes(32) });
    await expect(wrong.load("a", "c")).rejects.toThrow(
      expect.objectContaining({ code: "PS_RECORD_REFUSED" }),
    );
    expect((await wrong.stats()).refused).toBe(1);
    expect((await wrong.verify()).damaged).toBe(1);
    const none = await opened();
    expect((await none.verify()).damaged).toBe(1);
    const without = seamOn(none);
    await expect(
      without.prepare({ append: [user("x")] }, { now: NOW, conversation: "c", tenant: "a" }),
    ).rejects.toThrow(expect.objectContaining({ code: "PS_CONVERSATION_UNKNOWN" }));
    expect(without.stats().refusedRecords).toBe(1);
    await expect(SqliteStore.open(file, { key: randomBytes(16) })).rejects.toThrow(/32 bytes/);
  });

  test("what was deleted is gone from every byte of it", async () => {
    const store = await opened();
    const secret = "xyzzy-plugh-secret";
    const seam = seamOn(store);
    for (const [conversation, tenant] of [
      ["c", "a"],
      ["c", "b"],
    ] as const) {
      const turn = await seam.prepare({ messages: [user(secret)] }, { now: NOW, conversation, tenant });
      await turn.commit({ message: assistant("ok") });
    }
    expect((await everyByte()).includes(secret)).toBe(true);
    expect(await store.delete("a", "c")).toBe(true);
    expect(await store.delete("a", "c")).toBe(false);
    expect(await store.deleteTenant("b")).toBe(1);
    expect(await store.stats()).toMatchObject({ conversations: 0, artifacts: 0, bytes: 0 });
    expect((await everyByte()).includes(secret)).toBe(false);
  });

  test("is copied while it is used, and the copy goes on", async () => {
    const store = await opened();
    const seam = seamOn(store);
    const messages = await play(seam, 3);
    const copy = join(folder, "copy.db");
    const [, more] = await Promise.all([store.backUp(copy), play(seamOn(store), 3, { conversation: "d" })]);
    expect(more).toHaveLength(6);
    expect((await stat(copy)).mode & 0o777).toBe(0o600);
    await expect(store.backUp(copy)).rejects.toThrow(expect.objectContaining({ code: "PS_STORE" }));
    const other = await opened({}, copy);
    expect((await goOn(other, messages)).outcome).toEqual({ kind: "certified_suffix" });
    expect(await other.verify()).toMatchObject({ damaged: 0, orphans: 0, file: [] });
  });

  test("of another version, or none at all, is refused", async () => {
    await (await opened()).close();
    const bytes = await readFile(file);
    bytes.writeUInt32BE(99, 60);
    await writeFile(file, bytes);
    await expect(SqliteStore.open(file)).rejects.toThrow(/version 99/);
    const text = join(folder, "text.db");
    await writeFile(text, "no database, but a text that is long enough. ".repeat(100));
    await expect(SqliteStore.open(text)).rejects.toThrow(expect.objectContaining({ code: "PS_STORE" }));
    await expect(SqliteStore.open(join(folder, "none.db"), { readOnly: true })).rejects.toThrow(
      expect.objectContaining({ code: "PS_STORE" }),
    );
  });
});

describe("bounds", () => {
  test("what is over them leaves, the least recently used first", async () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    const store = await opened({ maxBytes: 20_000 });
    const seam = seamOn(store, { cacheBytes: 0 });
    for (let at = 0; at < 60; at++) {
      vi.setSystemTime(NOW.getTime() + at * 61_000);
      const messages = [user(randomBytes(400).toString("hex"))];
      const turn = await seam.prepare({ messages }, { now: NOW, conversation: `c${at}` });
      expect(await turn.commit({ message: assistant("ok") })).toEqual({ status: "committed" });
    }
    const { bytes, artifacts, evictions, fileBytes } = await store.stats();
    expect(bytes).toBeLessThanOrEqual(22_000);
    expect(artifacts + evictions).toBe(60);
    expect(artifacts).toBeGreaterThan(3);
    expect(fileBytes).toBeLessThan(200_000);
    expect((await store.load("", "c59"))?.tip).toBeDefined();
    expect((await store.load("", "c0"))?.tip).toBeUndefined();
    const gone = await seam.prepare(
      { messages: [user("x"), assistant("y"), user("z")] },
      { now: NOW, conversation: "c0" },
    );
    expect(gone.outcome).toMatchObject({ reason: "artifact_miss" });
  });

  test("what has expired leaves; a clock that jumps back changes nothing", async () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    vi.setSystemTime(NOW);
    const store = await opened();
    await play(seamOn(store, { ttlMs: 60_000 }), 2);
    vi.setSystemTime(NOW.getTime() - 3_600_000);
    expect(await store.expire()).toBe(0);
    expect((await store.load("", "c"))?.tip).toBeDefined();
    vi.setSystemTime(NOW.getTime() + 61_000);
    const late = await seamOn(store).prepare({ messages: [user("x")] }, { now: NOW, conversation: "c" });
    expect(late.outcome).toMatchObject({ reason: "artifact_expired" });
    expect(await store.expire()).toBe(2);
    expect(await store.stats()).toMatchObject({ artifacts: 0, bytes: 0, conversations: 1 });
    vi.setSystemTime(NOW.getTime() + 31 * 24 * 3_600_000);
    await store.expire();
    expect(await store.stats()).toMatchObject({ conversations: 0 });
  });
});

describe("trouble", () => {
  let trouble: StoreTroubleEvent[] = [];
  const listen = (event: unknown) => trouble.push(event as StoreTroubleEvent);
  beforeEach(() => {
    trouble = [];
    subscribe(CHANNELS.storeTrouble, listen);
  });
  afterEach(() => unsubscribe(CHANNELS.storeTrouble, listen));

  test("a damaged record costs a render, is counted and reported, and is replaced", async () => {
    const messages = await play(seamOn(await opened()), 3);
    await open.pop()?.close();
    const bytes = await readFile(file);
    // The frames of records are the only places with this head.
    let damaged = 0;
    for (let at = bytes.indexOf("PS\u0001"); at >= 0; at = bytes.indexOf("PS\u0001", at + 1)) {
      bytes[at + 40] = (bytes[at + 40] as number) ^ 0xff;
      damaged++;
    }
    expect(damaged).toBe(3);
    await writeFile(file, bytes);
    const store = await opened();
    expect(await store.verify()).toMatchObject({ artifacts: 3, damaged: 3 });
    const seam = seamOn(store);
    const request = { messages: [...messages, user("And then?")] };
    const turn = await seam.prepare(request, { now: NOW, conversation: "c" });
    await expectFullRender(model, turn, request);
    expect(turn.outcome).toEqual({ kind: "full_render", reason: "artifact_miss" });
    expect(trouble.map(({ code }) => code)).toContain("PS_RECORD_REFUSED");
    expect(await turn.commit({ message: assistant("ok") })).toEqual({ status: "committed" });
    const after = [...request.messages, assistant("ok")];
    expect((await goOn(store, after)).outcome).toEqual({ kind: "certified_suffix" });
  });

  test("a file that is cut off, or gone, fails no turn", async () => {
    const store = await opened();
    const messages = await play(seamOn(store), 3);
    await truncate(file, 3_000);
    await truncate(`${file}-wal`, 0);
    const request = { messages: [...messages, user("And then?")] };
    const turn = await seamOn(store).prepare(request, { now: NOW, conversation: "c" });
    await expectFullRender(model, turn, request);
    const { status } = await turn.commit({ message: assistant("ok") });
    expect(["committed", "not_durable"]).toContain(status);
  });

  test("a file that another process has locked: the turn ends in time, not durable", async () => {
    const store = await opened();
    const seam = seamOn(store, { storeTimeoutMs: 50 });
    await play(seam, 1);
    const lock = execFile("python3", [
      "-c",
      `import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(30)`,
      file,
    ]);
    try {
      await new Promise((resolve) => lock.stdout?.once("data", resolve));
      const turn = await seam.prepare({ append: [user("x")] }, { now: NOW, conversation: "c" });
      const started = performance.now();
      expect(await turn.commit({ message: assistant("y") })).toEqual({ status: "not_durable" });
      expect(performance.now() - started).toBeLessThan(1_000);
      expect(trouble.at(-1)).toMatchObject({ operation: "commit", timedOut: true });
    } finally {
      lock.kill("SIGKILL");
    }
  });

  test("a file that cannot be written", async () => {
    const messages = await play(seamOn(await opened()), 2);
    await open.pop()?.close();
    await chmod(file, 0o400);
    const store = await opened({ readOnly: true });
    const turn = await goOn(store, messages);
    expect(turn.outcome).toEqual({ kind: "certified_suffix" });
    expect(await turn.commit({ message: assistant("y") })).toEqual({ status: "not_durable" });
    expect(trouble.at(-1)).toMatchObject({ operation: "commit", code: "PS_STORE" });
  });

  test("a full disk: turns end not durable, and what was there stays", async () => {
    const script = join(import.meta.dirname, "full-disk.mjs");
    const limited = `trap '' XFSZ; ulimit -f 600; exec "$0" "$@"`;
    const { stdout } = await promisify(execFile)("bash", ["-c", limited, process.execPath, script, file]);
    const { committed, notDurable } = JSON.parse(stdout);
    expect(committed).toBeGreaterThan(3);
    expect(notDurable).toBeGreaterThan(3);
    const store = await opened();
    expect(await store.verify()).toMatchObject({ artifacts: committed, damaged: 0, orphans: 0, file: [] });
  });

  test("a store that was closed fails no turn", async () => {
    const store = await opened();
    const seam = seamOn(store);
    const messages = await play(seam, 1);
    await store.close();
    await store.close();
    const turn = await seam.prepare({ messages: [...messages, user("x")] }, { now: NOW });
    expect(turn.outcome).toEqual({ kind: "full_render", reason: "store_unavailable" });
    expect(await turn.commit({ message: assistant("y") })).toEqual({ status: "not_durable" });
    expect(trouble.at(-1)).toMatchObject({ code: "PS_CLOSED" });
  });
});
