// Starts the real vLLM of scripts/vllm and stops it again; for tests and benchmarks.

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ROOT, SetupError } from "./setup.mjs";

/** Where scripts/vllm installs it. */
export const VLLM_HOME = process.env.VLLM_HOME ?? join(homedir(), ".cache/promptseam-vllm");
const LOGS = join(ROOT, "target/vllm");
const START_SECONDS = 600;

/** Where a family's tokenizer, template and configuration are. */
export function modelFolder(family) {
  const folder = join(VLLM_HOME, "models", family);
  if (!existsSync(join(VLLM_HOME, ".venv/bin/vllm")) || !existsSync(folder)) {
    throw new SetupError(
      `There is no vLLM with a model ${family} in ${VLLM_HOME}. Run scripts/vllm/install.sh and scripts/vllm/models.sh (6 GB, ten minutes).`,
    );
  }
  return folder;
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/**
 * A running server. `engine: false` starts the render server, which has no engine.
 *
 * `group` is the process group of all its processes.
 */
export async function startVllm(family, { engine = true, flags = [], env = {}, port } = {}) {
  modelFolder(family);
  const at = port ?? (await freePort());
  mkdirSync(LOGS, { recursive: true });
  const log = join(LOGS, `${family}-${at}.log`);
  const out = openSync(log, "a");
  const script = join(ROOT, "scripts/vllm", engine ? "serve.sh" : "render.sh");
  // A group of its own: vLLM is several processes, and all of them must go.
  const child = spawn("bash", [script, family, String(at), ...flags], {
    detached: true,
    stdio: ["ignore", out, out],
    env: { ...process.env, ...env },
  });
  let exited = false;
  const exit = new Promise((resolve) => {
    child.on("exit", () => {
      exited = true;
      resolve();
    });
  });
  const signalGroup = (signal) => {
    try {
      process.kill(-child.pid, signal);
    } catch {
      // They are gone.
    }
  };
  const stopped = async (signal) => {
    signalGroup(signal);
    await Promise.race([exit, sleep(20_000)]);
    signalGroup("SIGKILL");
    await exit;
  };
  const onExit = () => signalGroup("SIGKILL");
  process.on("exit", onExit);
  const end = async (signal) => {
    await stopped(signal);
    process.off("exit", onExit);
  };

  const baseUrl = `http://127.0.0.1:${at}`;
  const startedAt = Date.now();
  const seconds = () => Math.round((Date.now() - startedAt) / 1000);
  process.stderr.write(`vLLM with ${family} starts ...`);
  while (!(await isHealthy(baseUrl))) {
    if (exited || seconds() > START_SECONDS) {
      await end("SIGKILL");
      const last = readFileSync(log, "utf8").trimEnd().split("\n").slice(-15).join("\n");
      throw new Error(`vLLM with ${family} did not start in ${seconds()} s. The end of ${log}:\n${last}`);
    }
    await sleep(500);
    if (seconds() % 10 === 0) process.stderr.write(".");
  }
  process.stderr.write(` ${seconds()} s\n`);
  return { baseUrl, group: child.pid, stop: () => end("SIGTERM") };
}

async function isHealthy(baseUrl) {
  try {
    return (await fetch(`${baseUrl}/health`, { signal: AbortSignal.timeout(2_000) })).ok;
  } catch {
    return false;
  }
}
