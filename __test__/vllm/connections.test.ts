/** Who owns a connection and for how long: reuse, release at every kind of end, deadlines, backpressure. */

import { spawn } from "node:child_process";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Prompt, PromptseamError, VllmClient } from "../../ts/index.ts";
import { type Fault, startTestServer, type TestServer } from "../../ts/testing/index.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterEach(() => {
  server.heal();
  server.answer({ text: "ok" });
});
afterAll(() => server.close());

const messages = [{ role: "user", content: "hi" }];
const timeouts = { firstTokenMs: 150, betweenTokensMs: 150, answerMs: 150 };

async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !holds(); i++) await sleep(10);
  expect(holds()).toBe(true);
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  return PromptseamError.isInstance(error) ? error.code : `not a PromptseamError: ${String(error)}`;
}

describe("connections", () => {
  test("one after another, requests use the same connections, streamed or not", async () => {
    await using client = new VllmClient({ baseUrl: server.baseUrl });
    let most = 0;
    for (let i = 0; i < 10; i++) {
      await client.chat({ messages }, { stream: i % 2 === 0 }).collect();
      await client.version();
      await sleep(2);
      most = Math.max(most, server.openConnections);
    }
    // The formal end of a stream is read in the background: a request sent at once may find it still coming.
    expect(most).toBeLessThanOrEqual(2);
  });

  // What fails in the middle of an answer must not leave a connection behind, and the client must stay usable.
  test.each<[string, Fault]>([
    ["a hang", { kind: "hang", when: "between_tokens" }],
    ["an error event", { kind: "error_event" }],
    ["broken JSON", { kind: "truncated_json" }],
    ["a wrong content type", { kind: "content_type", value: "application/xml" }],
    ["an error status", { kind: "status", status: 400 }],
    ["an error page", { kind: "html", status: 502 }],
    ["an oversized event", { kind: "long_line", bytes: 200_000 }],
  ])("after %s no connection is left once the client is closed", async (_, fault) => {
    const client = new VllmClient({ baseUrl: server.baseUrl, timeouts, maxEventBytes: 100_000 });
    server.answer({ text: "several tokens" });
    for (let i = 0; i < 3; i++) {
      server.fail(fault);
      expect(await codeOf(client.chat({ messages }).collect())).toMatch(/^PS_/);
    }
    expect((await client.chat({ messages }).collect()).text).toBe("several tokens");
    await client.close();
    await until(() => server.openConnections === 0);
  });

  test("break, return, cancel and abort each free the connection without closing the client", async () => {
    await using client = new VllmClient({ baseUrl: server.baseUrl });
    server.answer({ text: "x".repeat(300), tokenDelayMs: 5 });
    const stops: Record<string, () => Promise<void>> = {
      break: async () => {
        for await (const chunk of client.chat({ messages })) if (chunk.type === "text") break;
      },
      throw: async () => {
        for await (const _ of client.chat({ messages })) throw new Error("mine");
      },
      "return while a read waits": async () => {
        const iterator = client.chat({ messages })[Symbol.asyncIterator]();
        await iterator.next();
        server.fail({ kind: "hang", when: "first_token" });
        const waiting = (async () => {
          for (;;) if ((await iterator.next()).done) return;
        })();
        await sleep(5);
        await iterator.return?.();
        expect(await codeOf(waiting)).toBe("PS_ABORTED");
        server.heal();
      },
      cancel: async () => {
        const answer = client.chat({ messages });
        const reading = answer.collect();
        await sleep(20);
        await Promise.all([answer.cancel(), expect(codeOf(reading)).resolves.toBe("PS_ABORTED")]);
        await answer.cancel();
      },
      "await using": async () => {
        await using answer = client.chat({ messages });
        await answer[Symbol.asyncIterator]().next();
      },
      abort: async () => {
        const answer = client.chat({ messages }, { signal: AbortSignal.timeout(20) });
        expect(await codeOf(answer.collect())).toBe("PS_ABORTED");
      },
    };
    for (const [name, stop] of Object.entries(stops)) {
      await stop().catch((error: Error) => expect(error.message).toBe("mine"));
      await until(() => server.openConnections === 0);
      expect(server.requests.at(-1)?.aborted, name).toBe(true);
    }
  });

  test("fifty at once, half of them aborted: the rest is whole, and nothing stays open", async () => {
    const client = new VllmClient({ baseUrl: server.baseUrl });
    server.answer({ text: "a".repeat(60), tokenDelayMs: 2 });
    const results = await Promise.allSettled(
      Array.from({ length: 50 }, (_, i) =>
        client.chat({ messages }, i % 2 === 0 ? {} : { signal: AbortSignal.timeout(20 + i) }).collect(),
      ),
    );
    for (const [i, result] of results.entries()) {
      if (i % 2 === 0) expect(result.status === "fulfilled" && result.value.text).toBe("a".repeat(60));
    }
    expect(results.filter((result) => result.status === "rejected").length).toBeGreaterThan(0);
    await client.close();
    await until(() => server.openConnections === 0);
  });

  test("an abort listener does not stay on the caller's signal", async () => {
    await using client = new VllmClient({ baseUrl: server.baseUrl });
    const { signal } = new AbortController();
    let listeners = 0;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      listeners++;
      add(...args);
    };
    signal.removeEventListener = (...args: Parameters<typeof remove>) => {
      listeners--;
      remove(...args);
    };
    for (let i = 0; i < 5; i++) await client.chat({ messages }, { signal }).collect();
    await client.models({ signal });
    expect(listeners).toBe(0);
  });
});

describe("deadlines", () => {
  test("time in which the caller does not read does not count", async () => {
    await using client = new VllmClient({ baseUrl: server.baseUrl, timeouts });
    server.answer({ text: "abcd" });
    let text = "";
    for await (const chunk of client.chat({ messages })) {
      if (chunk.type !== "text") continue;
      text += chunk.text;
      await sleep(200);
    }
    expect(text).toBe("abcd");
  });

  test("bytes without an event are no progress", async () => {
    await using client = new VllmClient({ baseUrl: server.baseUrl, timeouts });
    server.fail({ kind: "chunked", bytes: 1, delayMs: 20 });
    expect(await codeOf(client.chat({ messages }).collect())).toBe("PS_TIMEOUT");
  });

  test("an answer that is not streamed has one deadline", async () => {
    await using client = new VllmClient({ baseUrl: server.baseUrl, timeouts });
    server.fail({ kind: "hang", when: "before_headers" });
    const error = await client
      .chat({ messages }, { stream: false })
      .collect()
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "PS_TIMEOUT", details: { phase: "answer", limit: 150 } });
  });

  test("a connection that never stands", async () => {
    // A listener whose queue is full drops further SYNs; the process must not accept, so it is another one.
    const script =
      "const s=require('net').createServer().listen({port:0,host:'127.0.0.1',backlog:1},()=>{" +
      "require('fs').writeSync(1,s.address().port+'\\n');Atomics.wait(new Int32Array(new SharedArrayBuffer(4)),0,0)})";
    const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "ignore"] });
    const fillers: Socket[] = [];
    try {
      const port = await new Promise<number>((resolve) => {
        child.stdout.once("data", (data: Buffer) => resolve(Number(data.toString())));
      });
      for (let i = 0; i < 8; i++) fillers.push(connect(port, "127.0.0.1").on("error", () => {}));
      await sleep(100);
      await using client = new VllmClient({
        baseUrl: `http://127.0.0.1:${port}`,
        timeouts: { connectMs: 200 },
      });
      const error = await client.version().catch((reason: unknown) => reason);
      expect(error).toMatchObject({ code: "PS_TIMEOUT", details: { phase: "connect" } });
    } finally {
      for (const filler of fillers) filler.destroy();
      child.kill("SIGKILL");
    }
  });
});

describe("backpressure", () => {
  let endless: Server;
  let written = 0;
  beforeAll(async () => {
    const event = `data: ${JSON.stringify({ id: "e", choices: [{ index: 0, delta: { content: "x".repeat(8_000) } }] })}\n\n`;
    endless = createServer((_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const write = (): void => {
        while (!response.destroyed && response.write(event)) written += event.length;
      };
      response.on("drain", write);
      write();
    });
    await new Promise<void>((resolve) => endless.listen(0, "127.0.0.1", resolve));
  });
  afterAll(() => {
    endless.closeAllConnections();
    endless.close();
  });

  test("an endless answer that nobody reads stops flowing", async () => {
    const { port } = endless.address() as AddressInfo;
    await using client = new VllmClient({ baseUrl: `http://127.0.0.1:${port}` });
    const iterator = client.complete(Prompt.fromIds([1]))[Symbol.asyncIterator]();
    await iterator.next();
    await sleep(300);
    const settled = written;
    await sleep(300);
    expect(written).toBe(settled);
    for (let i = 0; i < 2_000; i++) expect((await iterator.next()).done).toBe(false);
    expect(written).toBeGreaterThan(settled);
    await iterator.return?.();
  });

  test("an answer that is not streamed has a limit", async () => {
    const large = createServer((_request, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(`{"choices":[],"filler":"${"x".repeat(100_000)}"}`);
    });
    await new Promise<void>((resolve) => large.listen(0, "127.0.0.1", resolve));
    const { port } = large.address() as AddressInfo;
    await using client = new VllmClient({ baseUrl: `http://127.0.0.1:${port}`, maxAnswerBytes: 50_000 });
    expect(await codeOf(client.chat({ messages }, { stream: false }).collect())).toBe("PS_PROTOCOL");
    large.closeAllConnections();
    large.close();
  });
});
