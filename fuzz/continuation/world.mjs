// Runs the steps of a session and checks what comes of each. Steps are plain data, so that a session can be told, and run again.

import { isDeepStrictEqual } from "node:util";
import { checkPlan } from "./check.mjs";
import { Mismatch, restoredAnswer, withoutPrompt } from "./oracle.mjs";

/** The time of a turn: days of one month, at noon. */
export function dayOf(day) {
  return new Date(2026, 2, day, 12);
}

export class World {
  /** Steps so far. */
  steps = [];
  #kit;
  #turns = new Map();
  /** What is known of each artifact, by its id. */
  #records = new Map();
  #conversations = new Map();
  /** Ids that stand where the model wrote them itself: what spans may hold. */
  #written = new Set();

  /** @param {import("./kit.mjs").Kit} kit */
  constructor(kit) {
    this.#kit = kit;
  }

  /** Where a conversation stands: its open tool round, else its head. */
  tip(tenant, conversation) {
    const known = this.#conversations.get(keyOf(tenant, conversation));
    return known?.round ?? known?.head;
  }

  /** Runs a step. Of a turn it gives the turn and its record, or neither where it was refused as it should be. */
  async run(step) {
    this.steps.push(step);
    switch (step.do) {
      case "turn":
        return this.#turn(step);
      case "answer":
        return this.#answer(step);
      case "abandon":
        this.#turns.get(step.turn)?.turn.abandon();
        this.#turns.delete(step.turn);
        return undefined;
      case "forget":
        await this.#kit.store.delete(step.tenant, step.conversation);
        this.#conversations.delete(keyOf(step.tenant, step.conversation));
        return undefined;
      case "renew":
        this.#kit.renew(step.setup);
        return undefined;
      default:
        throw new Error(`there is no step ${step.do}`);
    }
  }

  async #turn(step) {
    const { store, model } = this.#kit;
    const { seam, options } = this.#kit.seam(step.setup);
    const { tenant, conversation } = step;
    store.forget();
    const how = { now: dayOf(step.day), tenant, ...(conversation === undefined ? {} : { conversation }) };
    const { value: turn, error } = await settled(seam.prepare(requestOf(step), how));
    const { checkpoint } = store;
    const base = this.#found(step);
    if (step.form === "append" && base === undefined) {
      if (error?.code !== "PS_CONVERSATION_UNKNOWN")
        throw new Mismatch("appended to nothing", { turn, error });
      return { refused: error.code };
    }
    const record = this.#record(step, base, options);
    const request = { ...record.members, messages: record.messages };
    const { value: full, error: wanted } = await settled(model.render(request, { now: dayOf(record.day) }));
    const why = { turn, error, full, wanted, model };
    if (turn === undefined) {
      if (wanted === undefined) {
        // Sampled ids can be more than those of the history form, by which a prompt that nearly fills the context is too long.
        const nearly = full.length > 0.9 * model.info.maxModelLength;
        if (
          options.history === "sampled" &&
          error.code === "PS_CONTEXT_OVERFLOW" &&
          base !== undefined &&
          nearly
        )
          return { refused: error.code };
        throw new Mismatch("refused what can be rendered", why);
      }
      if (wanted.code !== error.code || withoutPrompt(wanted.code) !== undefined)
        throw new Mismatch("refused for another reason than the full render", why);
      return { refused: error.code };
    }
    const asked = { options, base: record.base, record, checkpoint, written: this.#written };
    checkPlan(turn, asked, full, wanted, (wrong) => new Mismatch(wrong, why));
    Object.assign(record, { prompt: turn.prompt, seam: turn.seam, spans: turn.sampledSpans });
    this.#turns.set(step.id, { turn, record, step, version: checkpoint?.version ?? 0 });
    return { turn, record };
  }

  /** What is known of the artifact that the store found. */
  #found({ form, tenant, conversation }) {
    const { found, checkpoint } = this.#kit.store;
    const entry = form === "append" ? checkpoint?.tip : found;
    const record = entry === undefined ? undefined : this.#records.get(entry.id);
    if (form === "append" && entry !== undefined && record !== this.tip(tenant, conversation))
      throw new Mismatch("the store gave another tip than the conversation's", {});
    return record;
  }

  /** A turn as it should be: its messages as they are printed, and as they were sent. */
  #record({ form, append, messages, members, day }, found, { omittedReasoning, clock }) {
    const dated = (base) => (base === undefined || (clock === "follow" && base.day !== day) ? day : base.day);
    if (form === "append") {
      const after = [found.answer, ...append];
      return {
        base: found,
        messages: [...found.messages, ...after],
        sent: [...found.sent, ...after],
        members: { ...found.members, ...members },
        day: dated(found),
        completed: found.completed,
      };
    }
    if (found !== undefined && !isDeepStrictEqual(messages.slice(0, found.sent.length), found.sent))
      throw new Mismatch("goes on from a history that the request does not have", {});
    const restores = omittedReasoning === "restore";
    // What was put back into it was not sent.
    const base = found?.completed && !restores ? undefined : found;
    const plain = { base, passedOver: base !== found, messages, sent: messages, members, day: dated(base) };
    if (base === undefined || !restores) return { ...plain, completed: false };
    const answer = restoredAnswer(messages, base);
    const rest = messages.slice(base.sent.length);
    if (answer !== undefined) rest[0] = answer;
    return {
      ...plain,
      messages: [...base.messages, ...rest],
      completed: base.completed || answer !== undefined,
    };
  }

  /** Commits an answer to a turn, if that was planned. */
  async #answer({ turn: id, message, finishReason, sampled }) {
    const planned = this.#turns.get(id);
    if (planned === undefined) return;
    this.#turns.delete(id);
    const { model, store, forgets } = this.#kit;
    const { turn, record, version, step } = planned;
    const ids = sampled === undefined ? undefined : await idsOf(model, sampled);
    const answer = { message, finishReason, ...(ids === undefined ? {} : { sampledIds: ids }) };
    const { status } = await turn.commit(answer);
    const key = keyOf(step.tenant, step.conversation);
    const known = this.#conversations.get(key);
    const named = step.conversation !== undefined;
    const moves = named && (forgets ? status === "committed" : (known?.version ?? 0) === version);
    const wanted = !named || moves ? "committed" : "branched";
    if (status !== wanted) throw new Mismatch(`${status}, but should have been ${wanted}`, {});
    record.answer = message;
    if (ids !== undefined && record.prompt !== null) {
      record.ids = ids.subarray(0, ids.length - Number(sampled.stops));
      if (record.seam !== null)
        this.#written.add([...record.prompt.tokenIds().subarray(record.seam), ...record.ids].join());
    }
    // The same turn answered the same has one record.
    if (!this.#records.has(store.committed)) this.#records.set(store.committed, record);
    if (!moves) return;
    const round = Array.isArray(message.tool_calls) && message.tool_calls.length > 0;
    const kept = this.#records.get(store.committed);
    const ends = round ? { head: known?.head, round: kept } : { head: kept, round: undefined };
    this.#conversations.set(key, { version: version + 1, ...ends });
  }
}

function keyOf(tenant, conversation) {
  return JSON.stringify([tenant, conversation ?? null]);
}

/** What `work` gives, or its error. */
async function settled(work) {
  try {
    return { value: await work };
  } catch (error) {
    if (typeof error?.code !== "string" || !error.code.startsWith("PS_")) throw error;
    return { error };
  }
}

function requestOf({ form, messages, append, members }) {
  if (form === "append") return { append, ...members };
  const request = { messages, ...members };
  if (form === "object") return request;
  return Buffer.from(JSON.stringify(request, null, form === "spaced" ? 1 : 0));
}

async function idsOf(model, { pieces, stops }) {
  const ids = [];
  for (const piece of pieces) ids.push(...(await model.encode(piece)));
  if (stops) ids.push(model.info.stopTokenIds[0]);
  return Uint32Array.from(ids);
}
