/** What became of statements that failed: which may be tried again, and the error for the caller. */

import { PromptseamError } from "../../errors.ts";

/** Raised by the functions of the schema: what a turn went on from is gone. */
export const PARENT_GONE = "PS001";

/** The server ended the session, is starting, or had two transactions wait for each other: PostgreSQL's manual, appendix A. */
const PASSING_STATES = new Set(["57P01", "57P02", "57P03", "40001", "40P01"]);
const BROKEN_SOCKETS = new Set(["ECONNRESET", "EPIPE"]);
/** What `pg` 8 says, without a code, of a connection that ended under a statement. */
const BROKEN_CONNECTIONS = new Set([
  "Connection terminated",
  "Connection terminated unexpectedly",
  "Client has encountered a connection error and is not queryable",
]);

/** Schema, table or function that is not there. */
const MISSING = new Set(["3F000", "42P01", "42883"]);

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "";
}

/** Whether the same statement may do better on another connection. */
export function isPassing(error: unknown): boolean {
  const code = codeOf(error);
  if (code !== "") return PASSING_STATES.has(code) || BROKEN_SOCKETS.has(code) || code.startsWith("08");
  return error instanceof Error && BROKEN_CONNECTIONS.has(error.message);
}

/** The error of a call. Its message tells nothing of what was asked. */
export function storeError(cause: unknown, schema: string): PromptseamError {
  if (PromptseamError.isInstance(cause)) return cause;
  return new PromptseamError("PS_STORE", explain(codeOf(cause), schema), { cause });
}

function explain(code: string, schema: string): string {
  if (code === PARENT_GONE) return "What the turn went on from is no longer in the store.";
  if (MISSING.has(code))
    return (
      `The database has no tables of this promptseam in the schema "${schema}". ` +
      `Run PostgresStore.migrate(pool, { schema: "${schema}" }) once, as a role that may create them.`
    );
  if (code === "42501") return `The database role may not use the schema "${schema}" and what is in it.`;
  // Of the system, not of PostgreSQL.
  if (/^E[A-Z]/.test(code)) return `The database cannot be reached (${code}).`;
  return `The database did not answer as it should${code === "" ? "" : ` (${code})`}.`;
}
