// Plays turns until it is killed, and says on standard output what it is about to do and what is done.

import { writeSync } from "node:fs";
import { CONVERSATIONS, Player } from "./session.mjs";
import { openStore } from "./stores.mjs";

// Written at once: what is said before a kill has been said.
const say = (message) => writeSync(1, `${JSON.stringify(message)}\n`);

const player = await Player.on(await openStore(process.argv[2], process.argv[3]));
const versions = await player.versions();
say({ versions });
for (let at = 0; ; at++) {
  const conversation = (at * 5 + Number(process.argv[4])) % CONVERSATIONS;
  const turn = versions[conversation];
  const { right, outcome, commit } = await player.plan(conversation, turn);
  say({ planned: conversation, turn, right, outcome });
  const status = await commit();
  say({ ended: conversation, turn, status });
  if (status === "committed") versions[conversation]++;
}
