// An agent loop that keeps the ids of every turn: node examples/agent-loop.mjs MODEL_FOLDER [BASE_URL]

import { Model, VllmClient } from "promptseam";

const [folder, baseUrl = "http://127.0.0.1:8000"] = process.argv.slice(2);
const model = await Model.load(folder);
const client = new VllmClient({ baseUrl });
const messages = [{ role: "system", content: "Answer in one sentence." }];

let previous;
for (const question of ["What is a prefix cache?", "And who fills it?", "When is it lost?"]) {
  messages.push({ role: "user", content: question });
  const request = { messages, max_tokens: 64 };
  const prompt = await model.render(request, { previous });
  const answer = await client.chat(request, { prompt }).collect();
  messages.push({ role: "assistant", content: answer.text });
  const { cachedTokens, firstTokenMs } = answer.facts;
  console.log(
    `${prompt.length} tokens, ${prompt.reused} kept, ${cachedTokens} cached, first token after ${firstTokenMs?.toFixed(0)} ms`,
  );
  previous = prompt;
}
await client.close();
model.close();
