// One conversation of the soak: a stateless client that asks on and on, and looks at every turn whether the engine saw the full
// render of what it sent.

import { setTimeout as sleep } from "node:timers/promises";

/** Turns after which a conversation begins anew, so that its prompts stay short. */
const LONGEST = 14;
/** How many of its handles are dropped before they are used. */
const DROPPED = 0.08;
const TOOLS = [
  {
    type: "function",
    function: {
      name: "read_file",
      description: "Reads a file.",
      parameters: { type: "object", properties: { path: { type: "string" } }, required: ["path"] },
    },
  },
];

const words = (count) =>
  Array.from({ length: count }, () => WORDS[Math.floor(Math.random() * WORDS.length)]).join(" ");
const WORDS = [
  "path",
  "größe",
  "reads",
  "the",
  "file",
  "読む",
  "twice",
  "naïve",
  "index",
  "of",
  "rows",
  "👍🏽",
  "is",
  "const",
];

/** What the model is made to say: reasoning and text, or a call. */
function speech() {
  const thought = `<think>\n${words(6)}\n</think>\n\n`;
  if (Math.random() < 0.3)
    return `${thought}<tool_call>\n{"name": "read_file", "arguments": {"path": "${words(1)}.ts"}}\n</tool_call>`;
  return thought + words(12);
}

/** The message that a client sends back for an answer. */
function messageOf(chunks) {
  let [content, reasoning] = ["", ""];
  const calls = [];
  for (const chunk of chunks) {
    if (chunk.type === "text") content += chunk.text;
    if (chunk.type === "reasoning") reasoning += chunk.text;
    if (chunk.type !== "toolCall") continue;
    calls[chunk.call] ??= { id: "", type: "function", function: { name: "", arguments: "" } };
    calls[chunk.call].id += chunk.id ?? "";
    calls[chunk.call].function.name += chunk.name ?? "";
    calls[chunk.call].function.arguments += chunk.arguments;
  }
  return {
    role: "assistant",
    content: content === "" && calls.length > 0 ? null : content,
    ...(reasoning === "" ? {} : { reasoning }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  };
}

export class Conversation {
  #model;
  #seam;
  #report;
  #drop;
  #name;
  #tenant;
  #salt;
  #begun = 0;
  #messages = [];

  /** `drop`: asks the server to forget a handle, {id, tenant, salt}. */
  constructor({ model, seam, report, drop, number, tenant }) {
    this.#model = model;
    this.#seam = seam;
    this.#report = report;
    this.#drop = drop;
    this.#name = `conversation ${number}`;
    this.#tenant = tenant;
    this.#salt = `salt of ${tenant}`;
  }

  async run(until) {
    while (Date.now() < until) {
      if (this.#messages.length === 0) this.#begin();
      await this.#turn();
      if (this.#messages.length > 2 * LONGEST) this.#messages = [];
      await sleep(Math.random() * 400);
    }
  }

  #begin() {
    this.#begun++;
    this.#messages = [
      { role: "system", content: `${this.#name}, ${this.#begun}. ${words(150)}` },
      { role: "user", content: words(20) },
    ];
  }

  /** A turn that the server's restart cut off is taken again, as a caller would. */
  async #turn() {
    const ids = [...(await this.#model.encode(speech())), this.#model.info.stopTokenIds[0]];
    const request = {
      messages: this.#messages,
      tools: TOOLS,
      max_tokens: 300,
      cache_salt: this.#salt,
      vllm_xargs: { script: ids.join(" ") },
    };
    const turn = await this.#seam.prepare(request, {
      conversation: `${this.#name} ${this.#begun}`,
      tenant: this.#tenant,
    });
    const chunks = [];
    try {
      for await (const chunk of turn.stream()) chunks.push(chunk);
    } catch (error) {
      this.#report.failed(error, turn.facts);
      return;
    }
    const whole = await this.#model.render(request);
    this.#report.ended(turn, whole, Uint32Array.from(ids));
    const { handle } = turn.facts;
    if (handle !== null && Math.random() < DROPPED)
      await this.#drop({ id: handle.id, tenant: this.#tenant, salt: this.#salt });
    const answer = messageOf(chunks);
    this.#messages = [
      ...this.#messages,
      answer,
      ...(answer.tool_calls ?? []).map(({ id }) => ({ role: "tool", tool_call_id: id, content: words(25) })),
      ...(answer.tool_calls === undefined ? [{ role: "user", content: words(15) }] : []),
    ];
  }
}
