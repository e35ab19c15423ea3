// Runs the steps of a session and checks each: a turn's prompt against the full render, what it says of itself against what is
// known. Steps are plain data, so that a session can be told, and run again.

import { isDeepStrictEqual } from "node:util";
import { equalOutside, lastingMembers, Mismatch, printed, withoutPrompt } from "./oracle.mjs";

/** The time of a turn: days of one month, at noon. */
export function dayOf(day) {
  return new Date(2026, 2, day, 12);
}

export class World {
  /** Steps so far. */
  steps = [];
  #kit;
  #turns = new Map();
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
      case "forget": {
        await this.#kit.store.delete(step.tenant, step.conversation);
        this.#conversations.delete(keyOf(step.tenant, step.conversation));
        return undefined;
      }
      case "renew":
        this.#kit.renew(step.setup);
        return undefined;
      default:
        throw new Error(`there is no step ${step.do}`);
    }
  }

  /** Gives what came of it: the turn, or nothing where the request was refused as it should be. */
  async #turn(step) {
    const { store, model } = this.#kit;
    const { seam, options } = this.#kit.seam(step.setup);
    store.forget();
    const { turn, error } = await settled(
      seam.prepare(requestOf(step), {
        now: dayOf(step.day),
        tenant: step.tenant,
        ...(step.conversation === undefined ? {} : { conversation: step.conversation }),
      }),
    );
    const { checkpoint } = store;
    const found = step.form === "append" ? checkpoint?.tip : store.found;
    const base = found === undefined ? undefined : this.#records.get(found.artifact.id);
    const tip = this.tip(step.tenant, step.conversation);
    if (step.form === "append" && base !== tip && checkpoint?.tip !== undefined)
      throw new Mismatch("the store gave another tip than the conversation's", {});
    if (step.form === "append" && base === undefined)
      return refusedWith("PS_CONVERSATION_UNKNOWN", turn, error);

    const day =
      base === undefined || (options.clock === "follow" && base.day !== step.day) ? step.day : base.day;
    const record = this.#record(step, base, options, day);
    const request = { ...record.members, messages: record.messages };
    const full = await settled(model.render(request, { now: dayOf(day) }));
    const why = { turn, error, full: full.turn, wanted: full.error, model };
    if (full.error !== undefined) {
      const reason = withoutPrompt(full.error.code);
      if (turn === undefined) {
        if (reason !== undefined || error.code !== full.error.code)
          throw new Mismatch("refused for another reason than the full render", why);
        return { refused: error.code };
      }
      const declined = step.members.n > 1;
      if (turn.prompt !== null || (!declined && turn.outcome.reason !== reason))
        throw new Mismatch("planned what cannot be rendered", why);
    } else if (turn === undefined) {
      throw new Mismatch("refused what can be rendered", why);
    } else {
      this.#check(step, { turn, base, record, full: full.turn, checkpoint, why });
    }
    record.prompt = turn.prompt;
    record.seam = turn.seam;
    const version = checkpoint?.version ?? 0;
    this.#turns.set(step.id, { turn, record, version, step });
    return { turn, record, base };
  }

  #record(step, base, options, day) {
    const { append, messages } = step;
    if (step.form === "append") {
      const members = { ...base.members, ...lastingMembers(step.members) };
      const after = [base.answer, ...append];
      return { messages: [...base.messages, ...after], sent: [...base.sent, ...after], members, day };
    }
    if (base !== undefined && !isDeepStrictEqual(messages.slice(0, base.sent.length), base.sent))
      throw new Mismatch("goes on from a history that the request does not have", {});
    const restore = options.omittedReasoning === "restore";
    return {
      messages: printed(messages, base, restore),
      sent: messages,
      members: lastingMembers(step.members),
      day,
    };
  }

  #check(step, { turn, base, record, full, checkpoint, why }) {
    const { outcome, prompt } = turn;
    if (step.members.n > 1) {
      if (outcome.kind !== "messages" || outcome.reason !== "multiple_choices")
        throw new Mismatch("several choices were planned", why);
      return;
    }
    if (prompt === null) throw new Mismatch("left to the server what can be rendered", why);
    const spans = turn.sampledSpans;
    const sampled = this.#kit.seam(step.setup).options.history === "sampled";
    if (spans.length > 0 && !sampled) throw new Mismatch("sampled ids in a rendered history", why);
    const equal =
      spans.length === 0 ? prompt.equals(full) : equalOutside(prompt.tokenIds(), spans, full.tokenIds());
    if (!equal) throw new Mismatch("not the full render", why);
    for (const { start, end } of spans) {
      const ids = prompt.tokenIds().subarray(start, end).join();
      if (!this.#written.has(ids)) throw new Mismatch("a span holds what the model did not write", why);
    }
    if (turn.prefixLength + turn.appendedLength !== prompt.length)
      throw new Mismatch("lengths that do not add up", why);
    if (outcome.kind === "full_render" && outcome.reason === "shadow_mismatch")
      throw new Mismatch("only the shadow check found the prompt wrong", why);
    const certified = outcome.kind === "certified_suffix";
    if (certified !== (turn.certificate !== null))
      throw new Mismatch("a certificate where there is none to be", why);
    if (base === undefined) {
      const reason =
        checkpoint === undefined
          ? "no_checkpoint"
          : checkpoint.tip === undefined
            ? "artifact_miss"
            : "prefix_mismatch";
      if (outcome.reason !== reason) throw new Mismatch(`the reason is ${reason}`, why);
    } else if (certified) {
      if (base.prompt.diff(prompt).commonPrefix < turn.prefixLength)
        throw new Mismatch("ids were taken over that the earlier prompt does not have", why);
      if (base.day !== record.day || !isDeepStrictEqual(base.members.tools, record.members.tools))
        throw new Mismatch("certified under another environment", why);
    }
    if (outcome.reason === "template_rewrote_history") {
      const { commonPrefix } = base.prompt.diff(prompt);
      if (commonPrefix !== outcome.fromToken || commonPrefix >= base.seam)
        throw new Mismatch("history was not rewritten from there on", why);
    }
    if (certified && spans.length === 0 && base.ids !== undefined && turn.drift !== "unknown") {
      const seen = [...base.prompt.tokenIds().subarray(base.seam), ...base.ids];
      const kept = prompt.tokenIds().subarray(base.seam, base.seam + seen.length);
      const equalIds = kept.length === seen.length && kept.every((id, at) => id === seen[at]);
      if (equalIds !== (turn.drift === "none")) throw new Mismatch("drift that is none, or the reverse", why);
    }
  }

  /** Commits an answer to a turn, if that was planned. */
  async #answer({ turn: id, message, finishReason, sampled }) {
    const planned = this.#turns.get(id);
    if (planned === undefined) return undefined;
    this.#turns.delete(id);
    const { model, store } = this.#kit;
    const { turn, record, version, step } = planned;
    const ids = sampled === undefined ? undefined : await idsOf(model, sampled);
    const { status } = await turn.commit({
      message,
      finishReason,
      ...(ids === undefined ? {} : { sampledIds: ids }),
    });
    const known = this.#conversations.get(keyOf(step.tenant, step.conversation));
    const moves = step.conversation !== undefined && (known?.version ?? 0) === version;
    const wanted = step.conversation === undefined || moves ? "committed" : "branched";
    if (status !== wanted) throw new Mismatch(`${status}, but should have been ${wanted}`, {});
    record.answer = message;
    if (ids !== undefined && record.prompt !== null) {
      record.ids = ids.subarray(0, ids.length - Number(sampled.stops));
      if (record.seam !== null)
        this.#written.add([...record.prompt.tokenIds().subarray(record.seam), ...record.ids].join());
    }
    if (!this.#records.has(store.committed)) this.#records.set(store.committed, record);
    if (moves) {
      const round = Array.isArray(message.tool_calls) && message.tool_calls.length > 0;
      const kept = this.#records.get(store.committed);
      this.#conversations.set(keyOf(step.tenant, step.conversation), {
        version: version + 1,
        head: round ? known?.head : kept,
        round: round ? kept : undefined,
      });
    }
    return { status, record };
  }
}

function keyOf(tenant, conversation) {
  return JSON.stringify([tenant, conversation ?? null]);
}

/** What `work` gives, or its error. */
async function settled(work) {
  try {
    return { turn: await work };
  } catch (error) {
    if (typeof error?.code !== "string") throw error;
    return { error };
  }
}

function refusedWith(code, turn, error) {
  if (turn !== undefined || error.code !== code)
    throw new Mismatch(`should have been ${code}`, { turn, error });
  return { refused: code };
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
