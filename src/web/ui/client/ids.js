// Ids: such as need no coordination, and such as the server takes.

/** 128 random bits in hex. `crypto.randomUUID` is missing on plain-HTTP pages of other machines. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What the server takes as the id of a command. */
const COMMAND_ID = /^[\x21-\x7e]{1,128}$/;
/** What the server takes as the name of a room. */
const ENTITY_ID = /^(?:(?![/%:"<>])[\x21-\x7e]){1,128}$/;
/** What the server takes as the name of an ephemeral. */
const EPHEMERAL_NAME = /^[a-z0-9_]{1,32}$/;
const EPOCH = /^[0-9a-f]{16}\.\d{1,10}$/i;

/**
 * Why the server would not take this room's name or this place in it as such, for people; null if it
 * would. It counts what it cannot read, and ends a line that sends much of it.
 */
export function objection(room, { epoch, after, catchUp } = {}) {
  if (typeof room !== "string" || !ENTITY_ID.test(room)) {
    return `a room's name has 1 to 128 visible ASCII characters other than / % : " < >; got ${JSON.stringify(room)}`;
  }
  if ((epoch ?? null) !== null && (typeof epoch !== "string" || !EPOCH.test(epoch))) return `an epoch is what a room's cursor gave; got ${JSON.stringify(epoch)}`;
  if ((after ?? null) !== null && !(Number.isSafeInteger(after) && after >= 0)) return `\`after\` is a revision, 0 or more; got ${JSON.stringify(after)}`;
  if (![undefined, null, "events", "state"].includes(catchUp)) return `\`catchUp\` is "events" or "state"; got ${JSON.stringify(catchUp)}`;
  return null;
}

/** The same of a command's id: what has another is answered without one, so that nobody hears of it. */
export function idObjection(id) {
  return typeof id === "string" && COMMAND_ID.test(id) ? null : `a command's id has 1 to 128 visible ASCII characters; got ${JSON.stringify(id)}`;
}

/** The same of an ephemeral's name. */
export function nameObjection(name) {
  return typeof name === "string" && EPHEMERAL_NAME.test(name) ? null : `an ephemeral's name has 1 to 32 of a-z 0-9 _; got ${JSON.stringify(name)}`;
}

/** The same of a revision. */
export function revisionObjection(revision) {
  return Number.isSafeInteger(revision) && revision >= 0 ? null : `a revision is a whole number, 0 or more; got ${JSON.stringify(revision)}`;
}
