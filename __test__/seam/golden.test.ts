/** Along every golden conversation, the prompts that a Seam prepares are the server's own. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Model, type Prompt, Seam, type Turn } from "../../ts/index.ts";
import { type Family, type GoldenLine, golden, modelFolder } from "../support.ts";

const FAMILIES: readonly Family[] = ["qwen3", "llama3", "deepseek", "mistral", "gpt-oss"];

/** The lines of each conversation, in order. */
function conversations(family: Family): GoldenLine[][] {
  const all = new Map<string, GoldenLine[]>();
  for (const line of golden(family)) {
    const conversation = line.id.slice(0, line.id.lastIndexOf("-"));
    all.set(conversation, [...(all.get(conversation) ?? []), line]);
  }
  return [...all.values()];
}

describe.each(FAMILIES)("%s", (family) => {
  let model: Model;
  beforeAll(async () => {
    model = await Model.load(modelFolder(family));
  });
  afterAll(() => model.close());

  test.each(["objects", "bytes"])("every prompt of the golden conversations, as %s", async (form) => {
    let pairs = 0;
    let certified = 0;
    for (const lines of conversations(family)) {
      const seam = new Seam({ model });
      let before: { prompt: Prompt; seam: number } | undefined;
      for (const [at, line] of lines.entries()) {
        const request = form === "objects" ? line.request : Buffer.from(JSON.stringify(line.request));
        const now = new Date(`${line.now}T12:00:00`);
        const turn: Turn = await seam.prepare(request as never, { now, tenant: "a" });
        const prompt = turn.prompt as Prompt;
        expect([...prompt.tokenIds()], `${line.id}: ${JSON.stringify(turn.outcome)}`).toEqual(line.token_ids);
        if (before === undefined)
          expect(turn.outcome).toEqual({ kind: "full_render", reason: "no_checkpoint" });
        else if (before.prompt.diff(prompt).commonPrefix >= before.seam) {
          pairs++;
          if (turn.outcome.kind === "certified_suffix") certified++;
        } else {
          expect(turn.outcome).toMatchObject({
            kind: "aligned_render",
            reason: "template_rewrote_history",
            fromToken: before.prompt.diff(prompt).commonPrefix,
          });
        }
        before = { prompt, seam: turn.seam as number };
        const answer = lines[at + 1]?.request.messages[line.request.messages.length];
        await turn.commit({ message: (answer ?? { role: "assistant", content: "Done." }) as never });
      }
      expect(seam.stats().shadowMismatches).toBe(0);
    }
    expect(certified / pairs).toBeGreaterThanOrEqual(0.95);
  });
});
