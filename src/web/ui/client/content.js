// What is said to a server: why it would not take it, as far as that can be known here.
//
// A server counts what it cannot read, and ends a line that sends much of it, for all who share
// that line. So whoever says such a thing hears of it at once, and it is not sent. What is not
// known here, such as the commands and fields of a newer server, is that server's to judge.

import { revisionObjection } from "./ids.js";

/** What the server takes as the data of an ephemeral unless it is told otherwise, in bytes. */
export const EPHEMERAL_BYTES_MAX = 4_096;
/** Lists and objects that may lie in each other. */
const DEPTH_MAX = 64;
const HISTORY_LIMIT_MAX = 2 ** 32 - 1;
/** Half of a character: a surrogate without the other, which is in no Unicode text. */
const HALF = /\p{Surrogate}/u;

const TEXTS = ["title", "visibility", "reason", "member", "display_name", "text", "kind", "emoji", "avatar", "locale", "room"];
const REVISIONS = ["reply_to", "target"];
/** Of these null says the same as leaving them out. */
const NULLABLE = ["reason", "display_name", "reply_to", "avatar", "locale"];
/** The commands that are known here, and which fields each must have. */
const REQUIRED = {
  open_room: ["title"], rename_room: ["title"], close_room: [], set_visibility: ["visibility"],
  invite_member: ["member"], decline_invitation: [], withdraw_invitation: ["member"],
  join: [], leave: [], rename_member: ["display_name"], remove_member: ["member"],
  post_message: ["text"], edit_message: ["target", "text"], redact_message: ["target"],
  add_reaction: ["target", "emoji"], remove_reaction: ["target", "emoji"],
  set_profile: [], dismiss_invitation: ["room"],
};

/** Why the server would not take this text or this JSON value, for people; null if it may. */
export function contentObjection(value, depth = 0) {
  if (typeof value === "string") return HALF.test(value) ? `text has whole characters, and not half of one, as is left of an emoji that was cut in two; got ${shown(value)}` : null;
  if (typeof value !== "object" || value === null) return null;
  if (depth === DEPTH_MAX) return `at most ${DEPTH_MAX} lists and objects may lie in each other`;
  for (const [key, one] of Object.entries(value)) {
    const problem = contentObjection(key) ?? contentObjection(one, depth + 1);
    if (problem !== null) return problem;
  }
  return null;
}

/** The same of a command. */
export function commandObjection({ name, data, expected }) {
  if (typeof name !== "string" || name === "") return `a command's name is text, such as "post_message"; got ${shown(name)}`;
  if (typeof (data ?? {}) !== "object" || Array.isArray(data)) return `the data of a command is an object; got ${shown(data)}`;
  const problem = contentObjection(name) ?? contentObjection(data);
  if (problem !== null) return `${name}: ${problem}`;
  const misplaced = placeObjection("expected", expected);
  if (misplaced !== null) return `${name}: ${misplaced}`;
  const required = Object.hasOwn(REQUIRED, name) ? REQUIRED[name] : null;
  if (required === null) return null;
  for (const field of required) {
    if ((data?.[field] ?? null) === null) return `${name} needs \`${field}\`; got ${shown(data)}`;
  }
  for (const [field, value] of Object.entries(data ?? {})) {
    const wrong = fieldObjection(field, value);
    if (wrong !== null) return `${name}: \`${field}\`: ${wrong}`;
  }
  return null;
}

function fieldObjection(field, value) {
  if (value === null && NULLABLE.includes(field)) return null;
  if (TEXTS.includes(field) && typeof value !== "string") return `expected text; got ${shown(value)}`;
  return REVISIONS.includes(field) ? revisionObjection(value) : null;
}

/** The same of an ephemeral's data, as `{ code, message }`. @param {any} data as it came out of JSON */
export function ephemeralObjection(data, bytesMax) {
  const message = contentObjection(data);
  if (message !== null) return { code: "malformed", message: `an ephemeral's data: ${message}` };
  const bytes = new TextEncoder().encode(JSON.stringify(data)).length;
  if (bytes <= bytesMax) return null;
  return { code: "too_big", message: `an ephemeral's data has ${bytes} bytes, the server takes ${bytesMax}` };
}

/** The same of what a page of the past is asked for with. */
export function historyObjection({ before, limit }) {
  const misplaced = placeObjection("before", before);
  if (misplaced !== null) return misplaced;
  const isLimit = Number.isInteger(limit) && limit >= 0 && limit <= HISTORY_LIMIT_MAX;
  return isLimit ? null : `\`limit\` is a whole number, 0 or more; got ${shown(limit)}`;
}

// The same of a revision that may be left out.
function placeObjection(name, revision) {
  const problem = (revision ?? null) === null ? null : revisionObjection(revision);
  return problem === null ? null : `\`${name}\`: ${problem}`;
}

// The beginning of something as JSON.
const shown = (value) => (JSON.stringify(value) ?? String(value)).slice(0, 60);
