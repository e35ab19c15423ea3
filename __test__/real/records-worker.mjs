// Holds a Seam on a SQLite file and sends the turns that its parent gives it, until it is killed.

import { Model, Seam, SqliteStore, VllmClient } from "../../dist/index.js";

const [folder, baseUrl, file] = process.argv.slice(2);
const [model, store] = await Promise.all([Model.load(folder), SqliteStore.open(file)]);
const client = new VllmClient({ baseUrl });
const seam = new Seam({ model, client, store, shadow: { first: 0, share: 0 }, storeTimeoutMs: 10_000 });

process.on("message", async ({ request, options }) => {
  try {
    const turn = await seam.prepare(request, options);
    const chunks = [];
    for await (const chunk of turn.stream()) chunks.push(chunk);
    const { status } = await turn.committed;
    process.send({
      status,
      outcome: turn.outcome,
      ids: [...turn.prompt.tokenIds()],
      salt: JSON.parse((await turn.body("messages")).toString()).cache_salt,
      chunks,
    });
  } catch (error) {
    process.send({ failed: `${error.code}: ${error.message}` });
  }
});
process.send("ready");
