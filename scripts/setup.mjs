// Installs and builds what is missing in a clone: npm dependencies, the addon, the compiled TypeScript.
// Does nothing twice: each step keeps a digest of what it was made from. Needs only Node; says what else is missing.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const ROOT = fileURLToPath(new URL("..", import.meta.url));
const MINIMUM_NODE = [20, 17];
const MINIMUM_RUST = [1, 95];

/** A problem that the user must solve; shown without a stack. */
export class SetupError extends Error {}

function atLeast(version, [major, minor]) {
  const [hasMajor, hasMinor] = version.split(".").map(Number);
  return hasMajor > major || (hasMajor === major && hasMinor >= minor);
}

function requireNode() {
  if (!atLeast(process.versions.node, MINIMUM_NODE)) {
    throw new SetupError(
      `promptseam needs Node ${MINIMUM_NODE.join(".")} or newer; this is ${process.versions.node}.`,
    );
  }
  if (process.platform !== "linux") {
    throw new SetupError(`promptseam builds on Linux (x64 and arm64); this is ${process.platform}.`);
  }
}

function requireRust() {
  const { stdout, error } = spawnSync("cargo", ["--version"], { encoding: "utf8" });
  const version = /^cargo (\d+\.\d+)/.exec(stdout ?? "")?.[1];
  if (error || version === undefined) {
    throw new SetupError(
      "Building the addon needs Rust 1.95 or newer, and there is no cargo. Install it from https://rustup.rs.",
    );
  }
  if (!atLeast(version, MINIMUM_RUST)) {
    throw new SetupError(
      `Building the addon needs Rust ${MINIMUM_RUST.join(".")} or newer; this is ${version}. Run: rustup update`,
    );
  }
  const compiler = ["cc", "gcc", "clang"].find((name) => !spawnSync(name, ["--version"]).error);
  if (compiler === undefined) {
    throw new SetupError(
      "Building the addon needs a C compiler. On Debian or Ubuntu: apt-get install build-essential",
    );
  }
}

/** Every file under the given paths, in a fixed order. */
function filesUnder(paths) {
  return paths.flatMap((path) => {
    const full = join(ROOT, path);
    if (!existsSync(full)) return [];
    if (!statSync(full).isDirectory()) return [path];
    const names = readdirSync(full).filter((name) => name !== "node_modules" && name !== "target");
    return filesUnder(names.sort().map((name) => join(path, name)));
  });
}

function digestOf(paths) {
  const hash = createHash("sha256");
  for (const path of filesUnder(paths)) hash.update(`${path}\0`).update(readFileSync(join(ROOT, path)));
  return hash.digest("hex");
}

/** Runs a command with its output shown on standard error, so that standard output stays the caller's. */
function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: ["ignore", 2, 2] });
    child.on("error", (cause) => reject(new SetupError(`${command} cannot be run: ${cause.message}`)));
    child.on("close", (code) => {
      if (code === 0) resolve();
      else reject(new SetupError(`${command} ${args.join(" ")} failed with exit code ${code}.`));
    });
  });
}

/** A step: made from `inputs`, in one of the profiles that will do, there when `output` is. */
async function step({ name, inputs, profiles = ["release"], output, minutes, make }) {
  const stamp = join(ROOT, "node_modules", ".promptseam", name.replaceAll(" ", "-"));
  const digest = digestOf(inputs);
  const made = existsSync(stamp) ? readFileSync(stamp, "utf8") : "";
  const good = profiles.map((profile) => `${digest} ${profile}`);
  if (good.includes(made) && existsSync(join(ROOT, output()))) return;
  const start = Date.now();
  process.stderr.write(`promptseam: ${name} (${minutes}) ...\n`);
  await make();
  mkdirSync(join(stamp, ".."), { recursive: true });
  writeFileSync(stamp, good[0]);
  process.stderr.write(`promptseam: ${name} done in ${Math.round((Date.now() - start) / 1000)} s\n`);
}

/**
 * Builds what is missing or stale. The addon is built for release, unless the environment variable PROMPTSEAM_PROFILE is
 * "dev": then a development build, which takes half the time and checks more, will do too.
 */
export async function setup() {
  const dev = process.env.PROMPTSEAM_PROFILE === "dev";
  requireNode();
  await step({
    name: "npm dependencies",
    inputs: ["package-lock.json"],
    output: () => "node_modules/@napi-rs/cli",
    minutes: "under a minute",
    // Not `npm ci`: it refuses a lockfile without the optional packages of platforms that a registry does not carry.
    make: () => run("npm", ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"]),
  });
  await step({
    name: "native addon",
    inputs: [
      "Cargo.toml",
      "Cargo.lock",
      ".cargo",
      "crates/promptseam/src",
      "crates/promptseam/Cargo.toml",
      "crates/promptseam-node",
    ],
    profiles: dev ? ["dev", "release"] : ["release"],
    output: () => `native/promptseam.linux-${process.arch}-gnu.node`,
    minutes: "about five minutes on two cores the first time",
    make: () => {
      requireRust();
      return run("npm", ["run", "--silent", "build:addon", ...(dev ? [] : ["--", "--release"])]);
    },
  });
  await step({
    name: "TypeScript",
    inputs: ["ts", "native/binding.d.ts", "tsconfig.json", "tsconfig.build.json"],
    output: () => "dist/index.js",
    minutes: "seconds",
    make: () => run("npm", ["run", "--silent", "build:ts"]),
  });
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await setup().catch((error) => {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`promptseam: ${error.message}\n`);
    process.exitCode = 1;
  });
}
