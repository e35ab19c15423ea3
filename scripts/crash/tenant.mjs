/** Whose conversations crash tests play. */
export const TENANT = "promptseam crash test";
