/** The demo's server, in a thread of its own so that its work is not on the event loop that is being watched. */

import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { Model } from "../model.ts";
import { startTestServer } from "../testing/index.ts";

interface ServerData {
  readonly model: string;
  readonly modelName: string;
}

/** Starts the server's thread; gives its address and how to end it. */
export async function startDemoServer(
  data: ServerData,
): Promise<{ baseUrl: string; close: () => Promise<void> }> {
  const worker = new Worker(new URL(import.meta.url), { workerData: data });
  const baseUrl = await new Promise<string>((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
    worker.once("exit", (code) => reject(new Error(`The demo's server ended with code ${code}.`)));
  });
  return {
    baseUrl,
    close: async () => {
      await worker.terminate();
    },
  };
}

// What a small model on a fast GPU might take; promptseam changes none of it.
const PREFILL_MS_PER_1000 = 6;
const OVERHEAD_MS = 8;
// vLLM 0.32's own rendering and tokenizing, measured on two cores: about 87 ms at 30,000 tokens.
const RENDER_MS_PER_1000 = 2.9;

if (!isMainThread && parentPort !== null) {
  const { model: folder, modelName } = workerData as ServerData;
  const model = await Model.load(folder);
  const server = await startTestServer({
    model: {
      render: (request) => model.render(Buffer.from(JSON.stringify(request))),
      encode: (text, options) => model.encode(text, options),
      decode: (ids) => model.decode(ids),
      vocabularySize: model.info.idLimit,
    },
    modelName,
    prefillMsPer1000: PREFILL_MS_PER_1000,
    overheadMs: OVERHEAD_MS,
    renderMsPer1000: RENDER_MS_PER_1000,
    answers: { text: "Noted." },
  });
  parentPort.postMessage(server.baseUrl);
}
