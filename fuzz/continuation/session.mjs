// One session: clients that go on with conversations, as well and as badly as clients do.

import { answer, CallIds, sentBack } from "./answers.mjs";
import { defined, rareMembers, someArguments, someTools } from "./members.mjs";
import { chooseSetups } from "./setups.mjs";
import { content, text } from "./texts.mjs";

/** How a client sees a conversation. */
class Thread {
  /** @param {object} [other] the thread it is a copy of */
  constructor(other) {
    Object.assign(this, other);
    this.messages = [...(other?.messages ?? [])];
  }
}

export class Session {
  #random;
  #world;
  #family;
  #name;
  #setups;
  #ids = new CallIds();
  #threads = [];
  #turns = 0;
  #onTurn;

  /**
   * @param {import("./random.mjs").Random} random
   * @param {import("./world.mjs").World} world
   * @param {string} name Part of its tenants' names, which no other session of the same store may have.
   * @param onTurn Told of every turn: what came of it, and whether it was the session's first.
   */
  constructor(random, world, family, name, onTurn) {
    this.#random = random;
    this.#world = world;
    this.#family = family;
    this.#name = name;
    this.#setups = chooseSetups(random);
    if (random.chance(0.05)) random.disguised = 0.2;
    this.#onTurn = onTurn;
  }

  async run() {
    const random = this.#random;
    this.#threads.push(this.#start());
    for (let left = 6 + random.below(14); left > 0; left--) await this.#act();
  }

  #start() {
    const random = this.#random;
    const thread = new Thread();
    thread.tenant = `${this.#name}.${random.pick("aab")}`;
    thread.conversation = random.chance(0.8) ? `c${random.below(2)}` : undefined;
    thread.form = random.weighted([
      [5, "object"],
      [4, "bytes"],
      [1, "spaced"],
    ]);
    thread.day = 1 + random.below(3);
    thread.members = defined({ tools: someTools(random), chat_template_kwargs: someArguments(random) });
    thread.calls = thread.members.tools === undefined ? 0.05 : 0.5;
    if (random.chance(0.55))
      thread.messages.push({ role: random.chance(0.9) ? "system" : "developer", content: text(random) });
    return thread;
  }

  async #act() {
    const random = this.#random;
    const thread = random.pick(this.#threads);
    if (random.chance(0.05)) thread.day++;
    const act = random.weighted([
      [62, () => this.#goOn(thread)],
      [14, () => this.#append(thread)],
      [5, () => this.#twoAtOnce(thread)],
      [4, () => this.#again(thread)],
      [5, () => this.#edit(thread)],
      [3, () => this.#reconfigure(thread)],
      [2, () => this.#dropReasoning(thread)],
      [2, () => this.#fork(thread)],
      [2, () => this.#otherTenant(thread)],
      [1, () => this.#threads.push(this.#start())],
      [0.4, () => this.#forget(thread)],
      [0.1, () => this.#world.run({ do: "renew", setup: random.pick(this.#setups) })],
    ]);
    await act();
  }

  async #goOn(thread) {
    await this.#send(thread, [...thread.messages, ...this.#next(thread.messages.at(-1))]);
  }

  /** What may follow a message. */
  #next(last) {
    const random = this.#random;
    const user = () => ({ role: "user", content: content(random) });
    if (last?.role !== "assistant") return [user()];
    const calls = last.tool_calls ?? [];
    if (calls.length > 0 && random.chance(0.95)) {
      const results = calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: content(random) }));
      if (random.chance(0.03)) results.pop();
      if (random.chance(0.05)) results.reverse();
      if (random.chance(0.03)) results.push({ role: "tool", tool_call_id: "unknown00", content: "?" });
      if (random.chance(0.03) || results.length === 0) results.push(user());
      return results;
    }
    if (random.chance(0.01)) return [{ role: "system", content: text(random) }, user()];
    if (random.chance(0.02)) return [user(), user()];
    return [user()];
  }

  async #append(thread) {
    const { tenant, conversation } = thread;
    const tip = conversation === undefined ? undefined : this.#world.tip(tenant, conversation);
    if (conversation === undefined || (tip === undefined && this.#random.chance(0.9)))
      return this.#goOn(thread);
    const append = this.#next(tip?.answer);
    // Members are only named where they differ from the turn before.
    const members = this.#random.chance(0.95) ? {} : defined({ tools: someTools(this.#random) });
    const came = await this.#turn(thread, { form: "append", append, members });
    if (came.turn === undefined) return;
    thread.messages = came.record.messages;
    thread.members = { ...thread.members, ...members };
    await this.#answer(thread, came);
  }

  async #send(thread, messages) {
    const { form } = thread;
    const members = { ...thread.members, ...rareMembers(this.#random) };
    const came = await this.#turn(thread, { form, messages, members });
    if (came.turn === undefined) return;
    thread.messages = messages;
    await this.#answer(thread, came);
  }

  /** Prepares a turn. */
  async #turn({ tenant, conversation, day }, how) {
    const id = this.#turns++;
    const setup = this.#random.pick(this.#setups);
    const step = { do: "turn", id, setup, tenant, ...defined({ conversation }), day, ...how };
    const came = { id, ...(await this.#world.run(step)) };
    this.#onTurn(came, id === 0);
    return came;
  }

  async #answer(thread, { id }) {
    const random = this.#random;
    if (random.chance(0.04)) {
      await this.#world.run({ do: "abandon", turn: id });
      // The client may keep what it got so far.
      if (random.chance(0.5))
        thread.messages = [...thread.messages, { role: "assistant", content: text(random) }];
      return;
    }
    const step = answer(random, { family: this.#family, ids: this.#ids, calls: thread.calls });
    await this.#world.run({ do: "answer", turn: id, ...step });
    thread.messages = [...thread.messages, sentBack(random, step.message)];
  }

  /** Two turns from one head; both are answered, and both gone on from. */
  async #twoAtOnce(thread) {
    const random = this.#random;
    const other = new Thread(thread);
    const sent = [];
    for (const each of [thread, other]) {
      const messages = [...each.messages, ...this.#next(each.messages.at(-1))];
      const came = await this.#turn(each, { form: each.form, messages, members: each.members });
      if (came.turn === undefined) continue;
      each.messages = messages;
      sent.push([each, came]);
    }
    if (random.chance(0.3)) sent.reverse();
    for (const [each, came] of sent) await this.#answer(each, came);
    this.#threads.push(other);
  }

  /** The same turn once more, as for another answer. */
  async #again(thread) {
    const last = thread.messages.findLastIndex(({ role }) => role === "assistant");
    if (last > 0) await this.#send(thread, thread.messages.slice(0, last));
  }

  async #edit(thread) {
    const random = this.#random;
    const at = random.below(thread.messages.length);
    const edited = thread.messages[at];
    if (edited === undefined) return;
    const change = { ...edited, content: random.chance(0.2) ? "" : content(random) };
    const rest = random.chance(0.5) ? thread.messages.slice(at + 1) : [];
    thread.messages = [...thread.messages.slice(0, at), change, ...rest];
    await this.#goOn(thread);
  }

  async #reconfigure(thread) {
    const random = this.#random;
    const { members, messages } = thread;
    const change = (changed) => {
      thread.members = defined({ ...members, ...changed });
    };
    random.pick([
      () => change({ tools: someTools(random) }),
      () => change({ chat_template_kwargs: someArguments(random) }),
      () => {
        const rest = messages[0]?.role === "system" ? messages.slice(1) : messages;
        const head = random.chance(0.3) ? [] : [{ role: "system", content: text(random) }];
        thread.messages = [...head, ...rest];
      },
    ])();
    await this.#goOn(thread);
  }

  /** As clients do that do not know of it. */
  async #dropReasoning(thread) {
    thread.messages = thread.messages.map(({ reasoning, reasoning_content, ...message }) => message);
    await this.#goOn(thread);
  }

  async #fork(thread) {
    const copy = new Thread(thread);
    const users = copy.messages.flatMap(({ role }, at) => (role === "assistant" ? [at + 1] : []));
    copy.messages = copy.messages.slice(0, this.#random.pick([...users, copy.messages.length]));
    if (this.#random.chance(0.5)) copy.conversation = "fork";
    this.#threads.push(copy);
    await this.#goOn(copy);
  }

  /** The same conversation, by name and by content, of somebody else. */
  async #otherTenant(thread) {
    const copy = new Thread(thread);
    copy.tenant = copy.tenant.endsWith("a") ? `${this.#name}.b` : `${this.#name}.a`;
    this.#threads.push(copy);
    await this.#goOn(copy);
  }

  async #forget({ tenant, conversation }) {
    if (conversation !== undefined) await this.#world.run({ do: "forget", tenant, conversation });
  }
}
