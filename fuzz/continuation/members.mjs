// The members of a request that stand beside its messages. Few of them, used again and again: each set that is new makes a Seam
// try its template anew.

const parameters = { type: "object", properties: { path: { type: "string" }, n: { type: "integer" } } };
const tool = (name, more = {}) => ({
  type: "function",
  function: { name, description: `Does ${name}.`, parameters, ...more },
});

const TOOLS = [
  undefined,
  [tool("read")],
  [tool("read"), tool("write", { description: "Writes a file & says <ok>." })],
  [tool("write", { description: "Writes a file & says <ok>." }), tool("read")],
];

const ARGUMENTS = [
  undefined,
  { enable_thinking: false },
  { enable_thinking: true },
  { thinking: true },
  { date_string: "26 Jul 2024", tools_in_user_message: false },
];

export function someTools(random) {
  return random.pick(TOOLS);
}

export function someArguments(random) {
  return random.chance(0.6) ? undefined : random.pick(ARGUMENTS);
}

/** Members that most requests do not have. */
export function rareMembers(random) {
  return random.weighted([
    [88, {}],
    [2, { temperature: 0.5, max_tokens: 64 }],
    [1, { tool_choice: "none" }],
    [1, { tool_choice: "auto" }],
    [1, { n: 2 }],
    [1, { cache_salt: "pepper" }],
    [1, { add_generation_prompt: false }],
    [1, { continue_final_message: true, add_generation_prompt: false }],
    [1, { documents: [{ title: "t", text: "x" }] }],
    [1, { reasoning_effort: "high" }],
    [1, { model: "served" }],
    [0.3, { tools: [] }],
    [0.3, { chat_template_kwargs: { tools: null } }],
  ]);
}

/** `members` without those that are undefined, as JSON has them. */
export function defined(members) {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}
