// What the processes that fight for conversations agree on.

export const CONVERSATIONS = 200;
export const HOT = 5;

export const tenantOf = (number) => (number % 2 === 0 ? "even" : "odd");

/** The messages of a planned turn. */
export async function historyOf(turn) {
  return JSON.parse((await turn.body("messages")).toString()).messages;
}
