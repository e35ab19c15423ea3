// Commits turns until well after the disk is full, as a limit on the size of files makes it, and prints how they ended.

import { randomBytes } from "node:crypto";
import { modelFolder } from "../../bench/sampling.mjs";
import { Model, Seam, SqliteStore } from "../../dist/index.js";

const model = await Model.load(modelFolder("qwen3"), { threads: 1 });
const store = await SqliteStore.open(process.argv[2]);
const seam = new Seam({ model, store, storeTimeoutMs: 5_000 });
let committed = 0;
let notDurable = 0;
for (let at = 0; notDurable < 8 && at < 200; at++) {
  const messages = [{ role: "user", content: randomBytes(20_000).toString("base64") }];
  const turn = await seam.prepare({ messages }, { conversation: `c${at}` });
  const { status } = await turn.commit({ message: { role: "assistant", content: "ok" } });
  if (status === "committed") committed++;
  else notDurable++;
}
await store.close();
model.close();
process.stdout.write(JSON.stringify({ committed, notDurable }));
