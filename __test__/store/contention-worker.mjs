// One of several processes that take turns of the same conversations, and says what became of each.

import { setTimeout as sleep } from "node:timers/promises";
import { Seam } from "../../dist/index.js";
import { tinyModel } from "../../dist/testing/tiny-model.js";
import { openStore } from "../../scripts/crash/stores.mjs";
import { CONVERSATIONS, HOT, historyOf, tenantOf } from "./contention.mjs";

const [kind, location, name, turns] = process.argv.slice(2);
const model = await tinyModel();
const store = await openStore(kind, location);
const seam = new Seam({ model, store, shadow: { first: 0, share: 0 }, storeTimeoutMs: 20_000 });

const pick = (count) => Math.floor(Math.random() * count);
const said = [];
for (let turn = 0; turn < Number(turns); turn++) {
  // Half of the turns are of a few conversations, which are fought for.
  const number = pick(2) === 0 ? pick(HOT) : pick(CONVERSATIONS);
  const options = { tenant: tenantOf(number), conversation: `c${number}` };
  const text = `${tenantOf(number)} ${name}-${turn}`;
  const message = { role: "user", content: text };
  const planned = await seam.prepare({ append: [message] }, options);
  const messages = await historyOf(planned);
  await sleep(pick(4));
  const answer = { role: "assistant", content: `Answer to ${text}` };
  const { status } = await planned.commit({ message: answer });
  said.push({ number, text, status, ...(status === "branched" ? { messages: [...messages, answer] } : {}) });
  if (messages.some(({ content }) => !content.includes(tenantOf(number))))
    said.push({ number, text, status: "another tenant's" });
}
await store.close();
model.close();
process.stdout.write(JSON.stringify(said));
