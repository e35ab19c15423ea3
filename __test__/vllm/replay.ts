/** A server that gives back recorded answers, byte for byte, in pieces of the test's choosing. */

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface Recorded {
  readonly status: number;
  readonly contentType: string;
  readonly body: Buffer;
}

const FOLDER = new URL("../fixtures/vllm/", import.meta.url);
const ANSWERS = JSON.parse(readFileSync(new URL("answers.json", FOLDER), "utf8")) as Record<
  string,
  { status: number; contentType: string; body: string }
>;

/** A recorded stream or answer by its name. */
export function recorded(name: string): Recorded {
  const answer = ANSWERS[name];
  if (answer !== undefined) return { ...answer, body: Buffer.from(answer.body) };
  const body = readFileSync(new URL(`${name}.sse`, FOLDER));
  return { status: 200, contentType: "text/event-stream; charset=utf-8", body };
}

/** Serves one answer to every request, cut after each of `cuts` bytes. */
export async function startReplay(): Promise<{
  baseUrl: string;
  serve(answer: Recorded, cuts?: readonly number[]): void;
  lastBody(): string;
  close(): Promise<void>;
}> {
  let answer: Recorded = recorded("404");
  let cuts: readonly number[] = [];
  let lastBody = "";
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
    lastBody = Buffer.concat(parts).toString("utf8");
    response.writeHead(answer.status, { "content-type": answer.contentType });
    let from = 0;
    for (const to of cuts) {
      response.write(answer.body.subarray(from, to));
      await new Promise((resolve) => setImmediate(resolve));
      from = to;
    }
    response.end(answer.body.subarray(from));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    serve: (next, at = []) => {
      answer = next;
      cuts = at;
    },
    lastBody: () => lastBody,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
