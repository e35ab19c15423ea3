// The tests of python/: `node scripts/test-python.mjs` in an environment of their own, without vLLM;
// with `--vllm`, those that need the real one, on servers that it starts.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { counted, printTotal, run } from "./results.mjs";
import { ROOT, SetupError } from "./setup.mjs";
import { startVllm, VLLM_HOME } from "./vllm-server.mjs";

const PROJECT = join(ROOT, "python");
const MINIMUM_PYTHON = "3.10";

/** Runs a command; gives its exit code and what it wrote to standard output, which `show` also shows. */
function execute(command, args, { show = true, env = {} } = {}) {
  return new Promise((resolve, reject) => {
    if (show) process.stdout.write(`\n> ${command} ${args.join(" ")}\n`);
    const child = spawn(command, args, {
      cwd: PROJECT,
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, ...env },
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      output += text;
      if (show) process.stdout.write(text);
    });
    child.on("error", (cause) => reject(new SetupError(`${command} cannot be run: ${cause.message}`)));
    child.on("close", (code) => resolve({ code, output }));
  });
}

async function must(command, args) {
  const { code } = await execute(command, args, { show: false });
  if (code !== 0) throw new SetupError(`${command} ${args.join(" ")} failed with exit code ${code}.`);
}

/** A virtual environment under target/, made once for each list of packages; gives its Python. */
async function environment(name, packages, sitePackages) {
  const folder = join(ROOT, "target", name);
  const python = join(folder, "bin/python");
  const stamp = join(folder, "packages");
  const wanted = createHash("sha256")
    .update(JSON.stringify([packages, sitePackages]))
    .digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return python;
  process.stderr.write("promptseam: Python test environment (under a minute) ...\n");
  const enough = `import sys; sys.exit(sys.version_info < (${MINIMUM_PYTHON.replace(".", ", ")}))`;
  const { code } = await execute("python3", ["-c", enough], { show: false });
  if (code !== 0) throw new SetupError(`The tests of python/ need Python ${MINIMUM_PYTHON} or newer.`);
  mkdirSync(folder, { recursive: true });
  await must("python3", ["-m", "venv", "--clear", folder]);
  await must(python, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...packages]);
  if (sitePackages !== undefined) {
    const { output } = await execute(python, ["-c", "import site; print(site.getsitepackages()[0])"], {
      show: false,
    });
    writeFileSync(join(output.trim(), "vllm.pth"), sitePackages);
  }
  writeFileSync(stamp, wanted);
  return python;
}

/** The packages of the `test` extra: the tests run on the sources, so the package itself is not installed. */
function testPackages() {
  const list = /^test = \[(.*)\]$/m.exec(readFileSync(join(PROJECT, "pyproject.toml"), "utf8"))?.[1];
  if (list === undefined) throw new Error("python/pyproject.toml has no extra `test` on one line.");
  return JSON.parse(`[${list}]`);
}

async function pytest(python, args, env) {
  const all = ["-m", "pytest", "-p", "no:cacheprovider", ...args];
  const { code, output } = await execute(python, all, { env: { ...env, PYTHONDONTWRITEBYTECODE: "1" } });
  const summary = output.trimEnd().split("\n").at(-1) ?? "";
  const number = (word) => Number(new RegExp(`(\\d+) ${word}`).exec(summary)?.[1] ?? 0);
  return counted(code, number("passed"), number("failed") + number("errors?"));
}

/** The tests that need no vLLM. */
export async function pythonTests() {
  return pytest(await environment("python-venv", testPackages()), []);
}

/** The tests on a real vLLM: first on one server, then on another that was started when that one had ended. */
export async function vllmTests() {
  const venv = join(VLLM_HOME, ".venv");
  const { output } = await execute(
    join(venv, "bin/python"),
    ["-c", "import site; print(site.getsitepackages()[0])"],
    { show: false },
  );
  const python = await environment("python-vllm-venv", ["pytest>=8"], output.trim());
  // The metadata by which vLLM finds the plugin is written by serve.sh.
  const PYTHONPATH = [join(PROJECT, "src"), join(ROOT, "target/vllm/plugin")].join(":");
  const PROMPTSEAM_VLLM_REF_FILE = join(ROOT, "target/vllm/plugin-ref.json");
  const on = async (options, args, env) => {
    const server = await startVllm("qwen3", options);
    try {
      return await pytest(python, ["tests_vllm", ...args], {
        PYTHONPATH,
        PROMPTSEAM_VLLM_REF_FILE,
        ...env(server.baseUrl),
      });
    } finally {
      await server.stop();
    }
  };
  const first = await on({}, ["-k", "not SecondServer"], (url) => ({ PROMPTSEAM_VLLM_URL: url }));
  const flags = ["--api-key", "secret", "--api-server-count", "2", "--no-enable-scale-out"];
  const second = await on({ flags }, ["-k", "SecondServer"], (url) => ({ PROMPTSEAM_VLLM_SECOND_URL: url }));
  return [first, second];
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  run(async () => printTotal(process.argv.includes("--vllm") ? await vllmTests() : [await pythonTests()]));
}
