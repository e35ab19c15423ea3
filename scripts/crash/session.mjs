// The turns that a crash test plays: the same ones every time, so that what a killed process had done can be told.

import { modelFolder } from "../../bench/sampling.mjs";
import { Model, Seam } from "../../dist/index.js";
import { TENANT } from "./tenant.mjs";

export const CONVERSATIONS = 6;
const TOOLS = [
  {
    type: "function",
    function: {
      name: "read",
      description: "Reads a file.",
      parameters: { type: "object", properties: { path: { type: "string" } } },
    },
  },
];
const NOW = new Date(2026, 2, 14, 12);

/** Some words that are the same for the same numbers. */
function words(conversation, turn, count) {
  let state = (conversation + 1) * 7919 + turn * 104_729;
  const next = () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state;
  };
  return Array.from({ length: count }, () => (next() % 46_656).toString(36)).join(" ");
}

/** What a turn appends, and how it is answered. Every fourth begins a tool round. */
function turnOf(conversation, turn) {
  const id = (number) => `call${String(conversation * 10_000 + number).padStart(5, "0")}`;
  const append =
    turn % 4 === 2
      ? { role: "tool", tool_call_id: id(turn - 1), content: words(conversation, turn, 150) }
      : { role: "user", content: words(conversation, turn, 40 + (turn % 7) * 40) };
  const call = { id: id(turn), type: "function", function: { name: "read", arguments: '{"path": "a"}' } };
  const answer =
    turn % 4 === 1
      ? { role: "assistant", content: "", tool_calls: [call] }
      : { role: "assistant", content: words(conversation, turn + 0.5, 60) };
  return { append, answer };
}

/** Plays turns on a store, wherever its conversations stand. */
export class Player {
  static async on(store) {
    const model = await Model.load(modelFolder("qwen3"), { threads: 1 });
    const seam = new Seam({ model, store, shadow: { first: 0, share: 0 }, storeTimeoutMs: 10_000 });
    return Object.assign(new Player(), { model, seam, store });
  }

  /** How many turns of each conversation the store has. */
  async versions() {
    const versions = [];
    for (let conversation = 0; conversation < CONVERSATIONS; conversation++) {
      const checkpoint = await this.store.load(TENANT, `c${conversation}`);
      versions.push(checkpoint?.version ?? 0);
    }
    return versions;
  }

  /** Plans a turn, compares it with the whole history rendered, and gives what it came to and how to record it. */
  async plan(conversation, turn) {
    const { append, answer } = turnOf(conversation, turn);
    const messages = [];
    for (let before = 0; before < turn; before++) {
      const { append, answer } = turnOf(conversation, before);
      messages.push(append, answer);
    }
    messages.push(append);
    const options = { conversation: `c${conversation}`, tenant: TENANT, now: NOW };
    const request = turn === 0 ? { messages, tools: TOOLS } : { append: [append] };
    const planned = await this.seam.prepare(request, options);
    const whole = await this.model.render({ messages, tools: TOOLS }, { now: NOW });
    const { kind, reason } = planned.outcome;
    return {
      right: planned.prompt?.equals(whole) === true,
      outcome: reason === undefined ? kind : `${kind}/${reason}`,
      commit: async () => (await planned.commit({ message: answer })).status,
    };
  }
}
