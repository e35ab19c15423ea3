/** Parity of our rendering with a server's, on a battery of probes, and what a difference means in words. */

import { type ErrorCode, PromptseamError } from "../errors.ts";
import type { Model } from "../model.ts";
import type { Prompt } from "../prompt.ts";
import type { VllmClient } from "./client.ts";
import type { CallOptions } from "./options.ts";
import { PROBES, type Probe } from "./probes.ts";

/** What is different, from the most common cause to the rarest. */
export type DifferenceKind = "text" | "date" | "ids" | "we_refuse" | "server_refuses";

/** One probe that we and the server do not render alike. */
export interface VerifyDifference {
  /** What the probe is about. */
  readonly probe: string;
  readonly kind: DifferenceKind;
  /** Ids at the start that both have; null where one side refused. */
  readonly commonPrefix: number | null;
  /** What differs, and what to do about it. The only text it quotes is the battery's own. */
  readonly message: string;
}

/** What {@link VllmClient.verify} found. */
export interface VerifyReport {
  /** Every probe gave the same ids, or was refused by both. */
  readonly ok: boolean;
  readonly probes: number;
  /** Probes that both refuse, as templates may. */
  readonly refused: number;
  /** In the battery's order. */
  readonly differences: readonly VerifyDifference[];
}

/** Options of {@link VllmClient.verify}. */
export interface VerifyOptions extends CallOptions {
  /** Served model name; needed where the server serves several. */
  readonly model?: string;
}

const DAY_MS = 86_400_000;

/** See {@link VllmClient.verify}. */
export async function verifyModel(
  client: VllmClient,
  model: Model,
  options: VerifyOptions,
): Promise<VerifyReport> {
  const differences: VerifyDifference[] = [];
  let refused = 0;
  for (const probe of PROBES) {
    const [ours, theirs] = [
      await settled(OUR_REFUSALS, renderHere(model, probe, options)),
      await settled(THEIR_REFUSALS, renderThere(client, probe, options)),
    ];
    if (ours.error !== null && theirs.error !== null) refused++;
    else {
      const difference = await compare(model, probe, ours, theirs, options);
      if (difference !== null) differences.push({ probe: probe.name, ...difference });
    }
    ours.prompt?.close();
    theirs.prompt?.close();
  }
  return { ok: differences.length === 0, probes: PROBES.length, refused, differences };
}

type Side =
  | { readonly prompt: Prompt; readonly error: null }
  | { readonly prompt: null; readonly error: PromptseamError };

const OUR_REFUSALS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "PS_CONTEXT_OVERFLOW",
  "PS_INVALID_REQUEST",
  "PS_INVALID_UNICODE",
  "PS_TEMPLATE_FAILED",
  "PS_TEMPLATE_MISSING",
  "PS_TEMPLATE_RAISED",
  "PS_UNSUPPORTED_CONTENT",
]);

const THEIR_REFUSALS: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["PS_CONTEXT_OVERFLOW", "PS_HTTP_STATUS"]);

/** A refusal is a result; every other failure says nothing about parity. */
async function settled(refusals: ReadonlySet<ErrorCode>, work: Promise<Prompt>): Promise<Side> {
  try {
    return { prompt: await work, error: null };
  } catch (error) {
    if (!PromptseamError.isInstance(error) || !refusals.has(error.code)) throw error;
    const { status = 400 } = error.details;
    if (status !== 400) throw error;
    return { prompt: null, error };
  }
}

function renderHere(
  model: Model,
  { request }: Probe,
  { signal }: VerifyOptions,
  now?: Date,
): Promise<Prompt> {
  return model.render(request, { signal, now });
}

async function renderThere(client: VllmClient, { request }: Probe, options: VerifyOptions): Promise<Prompt> {
  const named = options.model === undefined ? request : { ...request, model: options.model };
  try {
    return await client.render(named, options);
  } catch (error) {
    if (!PromptseamError.isInstance(error) || error.details.status !== 404) throw error;
    throw new PromptseamError(
      "PS_HTTP_STATUS",
      "The server does not render requests for us (/v1/chat/completions/render answered 404), or has no such model. " +
        "verify needs vLLM 0.32's render endpoint; `vllm launch render` serves it without an engine.",
      { cause: error, details: error.details },
    );
  }
}

async function compare(
  model: Model,
  probe: Probe,
  ours: Side,
  theirs: Side,
  options: VerifyOptions,
): Promise<Omit<VerifyDifference, "probe"> | null> {
  if (ours.error !== null) {
    return {
      kind: "we_refuse",
      commonPrefix: null,
      message: `The server renders what we refuse (${ours.error.code}: ${ours.error.message}) ${SAME_TEMPLATE}`,
    };
  }
  if (theirs.error !== null) {
    return {
      kind: "server_refuses",
      commonPrefix: null,
      message: `We render what the server refuses (${theirs.error.message}) ${SAME_TEMPLATE}`,
    };
  }
  const { commonPrefix, removed, appended } = ours.prompt.diff(theirs.prompt);
  if (removed === 0 && appended === 0) return null;
  const [here, there] = [textOf(model, ours.prompt), textOf(model, theirs.prompt)];
  const where = `from token ${commonPrefix} on (of ${ours.prompt.length} here, ${theirs.prompt.length} there)`;
  if (there === null) {
    return {
      kind: "ids",
      commonPrefix,
      message: `The ids differ ${where}, and the server's are not all in our vocabulary: it runs another model.`,
    };
  }
  if (here === there) {
    return {
      kind: "ids",
      commonPrefix,
      message:
        `The texts are equal, the ids differ ${where}. The tokenizers differ: load the tokenizer.json of the very ` +
        "revision that the server runs, and the server without --tokenizer-mode.",
    };
  }
  if (await isAnotherDay(model, probe, theirs.prompt, options)) {
    return {
      kind: "date",
      commonPrefix,
      message:
        "The template prints the date, and the server's is another day: its clock or its time zone differs from this " +
        "process's. Set TZ alike on both, or pass `now`.",
    };
  }
  return {
    kind: "text",
    commonPrefix,
    message: `The texts differ ${where}: ${firstDifference(here ?? "", there)} ${SAME_TEMPLATE}`,
  };
}

const SAME_TEMPLATE =
  "Load the model with the chat template that the server uses (its --chat-template, else that of the same revision) and " +
  "the same defaults (--default-chat-template-kwargs, --chat-template-content-format).";

function textOf(model: Model, prompt: Prompt): string | null {
  try {
    return model.decode(prompt);
  } catch (error) {
    if (PromptseamError.isInstance(error) && error.code === "PS_INVALID_TOKEN_ID") return null;
    throw error;
  }
}

async function isAnotherDay(
  model: Model,
  probe: Probe,
  theirs: Prompt,
  options: VerifyOptions,
): Promise<boolean> {
  for (const days of [-1, 1]) {
    const there = await renderHere(model, probe, options, new Date(Date.now() + days * DAY_MS));
    const equal = there.equals(theirs);
    there.close();
    if (equal) return true;
  }
  return false;
}

const QUOTED = 40;

function firstDifference(here: string, there: string): string {
  let at = 0;
  while (at < here.length && here[at] === there[at]) at++;
  const quote = (text: string) =>
    at < text.length ? JSON.stringify(text.slice(at, at + QUOTED)) : "nothing";
  const before = JSON.stringify(here.slice(Math.max(0, at - QUOTED), at));
  return `after ${before} we have ${quote(here)}, the server has ${quote(there)}.`;
}
