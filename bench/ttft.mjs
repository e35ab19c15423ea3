// Time to first token on a real vLLM, by every way to hand it a prompt, with the prefix cache warm. The ways take turns in
// one run, on the same prompts; what the engine saw is compared over all of them. Run by scripts/bench-ttft.mjs.

import { createHash } from "node:crypto";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import { Model, Seam, VllmClient } from "../dist/index.js";
import { bodyOf, conversation, freshText, TOOLS } from "./agent-text.mjs";
import { median, paired, row, say } from "./sampling.mjs";

export const SIZES = [2_000, 8_000, 16_000, 30_000, 60_000, 96_000];
const ROUNDS = 21;
/** Ids in a block of vLLM's cache on a CPU. */
const BLOCK = 128;
const OVERHEAD_TOKENS = 28_000;
const OVERHEAD_ROUNDS = 60;

const label = (tokens) => `${tokens / 1000}k`;

/** The answer to the ids, and what they are: little-endian words, as the plugin takes and hashes them. */
const wordsOf = (prompt) => Buffer.from(prompt.tokenIds().buffer);

class Server {
  #agent = new Agent();
  #origin;

  constructor(baseUrl) {
    this.#origin = baseUrl;
  }

  async #send(method, path, body) {
    const { statusCode, body: answer } = await this.#agent.request({
      origin: this.#origin,
      path,
      method,
      body,
    });
    const json = await answer.json();
    if (statusCode !== 200) throw new Error(`${path} answered ${statusCode}: ${JSON.stringify(json)}`);
    return json;
  }

  ready = (prompt) => this.#send("PUT", "/inference/bench/ready", wordsOf(prompt));
  firstToken = () => this.#send("POST", "/inference/bench/first_token", "{}");
  seen = () => this.#send("GET", "/inference/bench/seen");
  close = () => this.#agent.close();
}

/** Resolves at the first piece of the answer that the model generated; gives what reads the rest, so that its connection is kept. */
async function firstToken(answer) {
  const chunks = answer[Symbol.asyncIterator]();
  for (let next = await chunks.next(); !next.done; next = await chunks.next()) {
    if (next.value.type === "start" || next.value.type === "usage") continue;
    return async () => {
      for (let rest = next; !rest.done; rest = await chunks.next());
    };
  }
  throw new Error("an answer without a token");
}

async function bytesOf(answer) {
  await answer.collect();
  return answer.bodyBytes;
}

/** As the floor is sampled: drawing from Qwen3's vocabulary takes 5 ms, whatever way a prompt came. */
const GREEDY = { max_tokens: 1, temperature: 0 };

/** What makes the server's logits processor sample a text. */
const saying = async (model, text) => ({ script: Array.from(await model.encode(text)).join(" ") });

/** A turn that the server answers by handle, in a conversation of its own; gives the answer's message. */
async function begin(model, seam, messages, id) {
  const vllm_xargs = await saying(model, "<think>\n\n</think>\n\nDone.<|im_end|>");
  const turn = await seam.prepare({ messages, tools: TOOLS, vllm_xargs }, { conversation: id });
  let content = "";
  for await (const chunk of turn.stream()) if (chunk.type === "text") content += chunk.text;
  if (turn.facts.handle === null) throw new Error("the server keeps no prompt handles");
  return { message: { role: "assistant", content }, from: turn.facts.handle };
}

/** One turn: the history that the cache holds, and the request that comes next. */
async function turnOf(model, tokens, history = conversation(tokens - 500)) {
  const previous = await model.render(bodyOf(history));
  for (let content = freshText(600); ; content += " more") {
    const question = { role: "user", content };
    const messages = [...history, question];
    const body = bodyOf(messages);
    const prompt = await model.render(body, { previous });
    // What the engine computes of a cached prompt, a part of a block, is the same at every size.
    if (prompt.length % BLOCK !== 16) continue;
    return { previous, body, request: { messages, tools: TOOLS }, prompt, question };
  }
}

async function measureSize(model, client, server, tokens) {
  // What the product does: the Seam plans the turn, the server has the prompt before it.
  const seam = new Seam({ model, client, transport: "handle", shadow: { first: 0 } });
  await seam.warmUp();
  const asked = conversation(tokens - 500).slice(0, -1);
  const { message, from } = await begin(model, seam, asked, "bench");
  const { prompt, previous, body, request, question } = await turnOf(model, tokens, [...asked, message]);
  say(`${prompt.length} tokens: filling the prefix cache`);
  await client.generate(prompt, { max_tokens: 1 }).collect();
  await server.ready(prompt);

  const plan = () => model.render(body, { previous, forSending: true });
  // A token that shows: the piece that is waited for comes with it, not with the end of the answer.
  const sampling = { ...GREEDY, vllm_xargs: await saying(model, "Done") };
  const asking = { ...request, ...sampling };
  const ways = {
    messages: () => firstToken(client.chat(asking)),
    // A turn of promptseam's plans first: the aligned render is part of its time.
    "chat ids": async () => firstToken(client.chat(asking, { prompt: await plan() })),
    "generate ids": async () => firstToken(client.generate(await plan(), GREEDY)),
    handle: async () => {
      const turn = await seam.prepare({ append: [question] }, { conversation: "bench" });
      // Sent beside the turn, which is dropped and moves nothing: every round goes on from the same one.
      const answer = client.chat(asking, { prompt: turn.prompt, handle: { from } });
      const rest = await firstToken(answer);
      if (answer.facts.way !== "handle" || answer.facts.handleMisses > 0)
        throw new Error("a turn did not go by handle");
      return rest;
    },
    floor: () => server.firstToken(),
  };

  const expected = createHash("sha256").update(wordsOf(prompt)).digest("hex");
  for (const [name, send] of Object.entries(ways)) {
    const rest = await send();
    if (typeof rest === "function") await rest();
    const { sha256, length } = await server.seen();
    if (sha256 !== expected) {
      throw new Error(`by ${name} the engine saw other ids (${length}) than we render (${prompt.length})`);
    }
  }
  say(`${prompt.length} tokens: ${ROUNDS} rounds`);
  const samples = await paired(ways, {
    rounds: ROUNDS,
    warmUp: 2,
    prepare: async () => undefined,
    pauseMs: 30,
  });
  const bodies = {
    messages: await bytesOf(client.chat(asking)),
    "chat ids": await bytesOf(client.chat(asking, { prompt })),
    "generate ids": await bytesOf(client.generate(prompt, { max_tokens: 1 })),
    handle: await bytesOf(client.chat(asking, { prompt, handle: { from } })),
    floor: 2,
  };
  return { tokens: prompt.length, samples, bodies };
}

/** Shares of the removable time, pair by pair: how much of what `messages` costs above the floor a way saves. */
function removed({ messages, floor }, way) {
  return way.map((time, round) => (messages[round] - time) / (messages[round] - floor[round]));
}

/** Least squares: milliseconds for each 10,000 tokens. */
function slope(points) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [x, y] = [mean(points.map(([tokens]) => tokens)), mean(points.map(([, ms]) => ms))];
  const covariance = mean(points.map(([tokens, ms]) => (tokens - x) * (ms - y)));
  return (10_000 * covariance) / mean(points.map(([tokens]) => (tokens - x) ** 2));
}

export async function timeToFirstToken(baseUrl, modelFolder) {
  const model = await Model.load(modelFolder, { maxModelLength: 131_072 });
  const client = new VllmClient({ baseUrl, timeouts: { firstTokenMs: 600_000 } });
  const server = new Server(baseUrl);
  const rows = [];
  const sizes = [];
  for (const size of SIZES) {
    const { tokens, samples, bodies } = await measureSize(model, client, server, size);
    sizes.push({
      size,
      tokens,
      medians: Object.fromEntries(Object.entries(samples).map(([k, v]) => [k, median(v)])),
    });
    const base = `time to first token, ${label(size)}`;
    for (const [name, times] of Object.entries(samples)) {
      rows.push(
        row(`${base}: ${name}`, "ms", times, {
          tokens,
          bodyBytes: bodies[name],
          ...(name === "messages"
            ? {}
            : { baseline: `${base}: messages`, ratio: median(samples.messages.map((t, i) => t / times[i])) }),
        }),
      );
    }
    for (const name of ["generate ids", "handle"]) {
      const quotients = samples.messages.map((time, round) => time / samples[name][round]);
      rows.push(row(`${base}: messages over ${name}`, "x", quotients));
    }
    for (const name of ["chat ids", "generate ids", "handle"]) {
      rows.push(row(`removable time removed, ${label(size)}: ${name}`, "", removed(samples, samples[name])));
    }
  }
  const saved = (name) =>
    slope(sizes.map(({ tokens, medians }) => [tokens, medians.messages - medians[name]]));
  const slopes = {
    "chat ids": saved("chat ids"),
    "generate ids": saved("generate ids"),
    handle: saved("handle"),
    floor: saved("floor"),
  };
  for (const [name, ms] of Object.entries(slopes))
    rows.push(row(`time removed per 10k tokens: ${name}`, "ms", [ms]));
  rows.push(...(await overhead(baseUrl, model, client)));
  await Promise.all([client.close(), server.close()]);
  model.close();
  return { rows, sizes, slopes };
}

/** A streamed turn through the client, and the same bytes through undici alone. */
export async function overhead(baseUrl, model, client) {
  say(`the client beside undici alone, ${label(OVERHEAD_TOKENS)}`);
  const { prompt, body: request } = await turnOf(model, OVERHEAD_TOKENS);
  const sampling = { max_tokens: 16, ignore_eos: true };
  const body = prompt.writeJson(
    `${JSON.stringify({
      output_mode: "text",
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
      sampling_params: sampling,
    }).slice(0, -1)},"token_ids":`,
    "}",
  );
  const agent = new Agent();
  const raw = async () => {
    const answer = await agent.request({
      origin: baseUrl,
      path: "/inference/v1/generate",
      method: "POST",
      headers: { "content-type": "application/json", accept: "text/event-stream" },
      body,
    });
    let bytes = 0;
    for await (const chunk of answer.body) bytes += chunk.length;
    if (answer.statusCode !== 200 || bytes === 0) throw new Error(`generate answered ${answer.statusCode}`);
  };
  // How long the main thread was busy, waits left out, from the call to the headers of the next request. One listener for
  // all: each change of subscribers throws optimized code away.
  const before = { client: [], undici: [] };
  let onHeaders = () => {};
  const listener = () => onHeaders();
  subscribe("undici:client:sendHeaders", listener);
  const timed = (name, send) => async (input) => {
    const start = performance.eventLoopUtilization();
    onHeaders = () => {
      onHeaders = () => {};
      before[name].push(1000 * performance.eventLoopUtilization(start).active);
    };
    await send(input);
  };
  const samples = await paired(
    {
      client: timed("client", (planned) => client.generate(planned, sampling).collect()),
      undici: timed("undici", raw),
    },
    {
      rounds: OVERHEAD_ROUNDS,
      warmUp: 100,
      // As a turn does it: planned, then sent. Undici alone gets its body ready made.
      prepare: async () => {
        await sleep(20);
        return model.render(request, { previous: prompt, forSending: true });
      },
    },
  );
  unsubscribe("undici:client:sendHeaders", listener);
  await agent.close();
  const counted = (name) => before[name].slice(-OVERHEAD_ROUNDS);
  const [ours, theirs] = [counted("client"), counted("undici")];
  const name = `streamed turn of 16 tokens, ${label(OVERHEAD_TOKENS)}`;
  return [
    row(`${name}: undici alone`, "ms", samples.undici),
    row(`${name}: client`, "ms", samples.client),
    row(
      `${name}: client over undici`,
      "x",
      samples.client.map((time, i) => time / samples.undici[i]),
    ),
    row(
      "main thread before the first byte, 28k: client over undici",
      "µs",
      ours.map((us, i) => us - theirs[i]),
    ),
  ];
}
