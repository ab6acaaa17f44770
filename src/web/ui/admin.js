// The page of admins: how every read model stands, what is built beside it, what is parked.
import { byId, make, recall, remember, say } from "./dom.js";

const ASK_EVERY_MS = 1_000;
// Counting documents takes longer the more there are.
const COUNT_EVERY_MS = 15_000;
// A build that has not moved for so long stands still, whatever its rate was.
const STANDS_STILL_MS = 10_000;

const STATES = {
  live: ["up to date", "good"],
  catching_up: ["catching up", "wait"],
  frozen: ["older build serves", "bad"],
  standby: ["kept by another process", "bad"],
  foreign: ["store of another log", "bad"],
  retrying: ["failing, tries again", "bad"],
  unsupported: ["not kept by this store", ""],
  stopped: ["stopped", "bad"],
};
const JOB_STATES = {
  building: ["building", "wait"],
  proving: ["comparing", "wait"],
  paused: ["paused", "wait"],
  differs: ["differs", "bad"],
  done: ["done", "good"],
  cancelled: ["cancelled", ""],
  failed: ["failed", "bad"],
};
const FOUND = { same: ["the same", "good"], different: ["differs", "bad"] };
const STANDS_STILL = ["stands still", "bad"];
const PURPOSES = { rebuild: "Rebuild", verify: "Check", as_of: "As it was" };

const number = new Intl.NumberFormat();
const time = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const counts = new Map();
const letters = new Map();
const outcomes = new Map(); // what came of a key that was tried again, by read model
const moves = new Map(); // how far builds were, and since when
const cards = new Map();
let countedAt = -Infinity;
let isCounting = false;

const figure = (value) => (typeof value === "number" ? number.format(value) : value ?? "–");
const several = (count, what) => `${number.format(count)} ${what}${count === 1 ? "" : "s"}`;
const isActive = (job) => ["building", "proving", "paused", "differs"].includes(job?.state);

function duration(ms) {
  if (ms < 1_000) return `${ms} ms`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7_200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;
}

// Where the server has a key for tokens, this page acts with an integration's.
const TOKEN = "admin-token";

async function ask(path, method = "GET") {
  const token = recall("sessionStorage", TOKEN);
  const headers = { accept: "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const answer = await fetch(path, { method, headers });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const why = body.detail ?? `the server answered ${answer.status}`;
    const isRefused = [401, 403].includes(answer.status);
    if (isRefused) askToken(token ? `The server does not take this token: ${why}` : "This server asks for the token of an integration.");
    throw Object.assign(new Error(why), { isRefused });
  }
  return body;
}

function askToken(why) {
  byId("token-why").textContent = why;
  if (byId("token-form").hidden) byId("token").value = "";
  byId("token-form").hidden = false;
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  remember("sessionStorage", TOKEN, byId("token").value.trim());
  byId("token-form").hidden = true;
  say(byId("problem"), ""); // it was about the one before
  refresh().catch(failed);
});

const pathOf = (name, what) => `/api/projections/${encodeURIComponent(name)}${what}`;

async function act(name, what, toOutcome) {
  outcomes.delete(name);
  try {
    say(byId("problem"), "");
    const answer = await ask(pathOf(name, what), "POST");
    if (toOutcome) outcomes.set(name, toOutcome(answer));
  } catch (error) {
    if (!error.isRefused) say(byId("problem"), `${name}: ${error.message}`); // else the form says it
  }
  letters.delete(name);
  await refresh().catch(failed);
}

const waited = (events) => `${several(events, "event")} that waited ${events === 1 ? "was" : "were"} folded`;

function mended({ key, events, parked }) {
  if (!parked) return { text: `${key} goes on: ${waited(events)}.`, isBad: false };
  return { text: `${key} is parked still: ${parked}${events > 0 ? `. Before that ${waited(events)}.` : ""}`, isBad: true };
}

// Asks before what cannot be taken back with one click.
function sure(title, text, yes, then) {
  const dialog = byId("ask");
  byId("ask-title").textContent = title;
  byId("ask-text").textContent = text;
  byId("ask-yes").textContent = yes;
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "yes") then();
  }, { once: true });
  dialog.returnValue = "no";
  dialog.showModal();
}

function button(text, onClick, className = "") {
  const element = make("button", className, text);
  element.type = "button";
  element.addEventListener("click", onClick);
  return element;
}

function figures(standing) {
  const lag = standing.lag_events === 0 ? "none" : `${number.format(standing.lag_events)} · ${duration(standing.lag_ms)}`;
  const entries = [
    ["Documents", figure(counts.get(standing.name))],
    ["Position", figure(standing.position)],
    ["Behind", lag],
    ["Parked keys", figure(standing.parked), standing.parked > 0],
  ];
  return make("dl", "figures", ...entries.map(([name, value, bad]) =>
    make("div", "", make("dt", "", name), make("dd", bad ? "bad" : "", value))));
}

function tag([text, kind]) {
  return make("span", `state ${kind}`, text);
}

const isKnown = (value) => value !== null && value !== undefined;

function jobLine(job, standsStill) {
  const parts = [];
  if (isKnown(job.position)) parts.push(`position ${figure(job.position)}${isKnown(job.target) ? ` of ${figure(job.target)}` : ""}`);
  if (!standsStill && job.events > 0) parts.push(`${number.format(job.events_per_second)} events/s`);
  parts.push(`${several(job.documents_written, "document")} written`);
  if (!standsStill && job.state === "building" && isKnown(job.eta_ms)) parts.push(`${duration(job.eta_ms)} left`);
  if (!isActive(job)) parts.push(`took ${duration(job.worked_ms)}`);
  return parts.join(" · ");
}

// A check that is done is not good by that: what it found counts.
function jobTag(job, standsStill) {
  if (job.purpose === "verify" && job.state === "done") return job.difference ? FOUND.different : FOUND.same;
  return standsStill ? STANDS_STILL : JOB_STATES[job.state] ?? [job.state, ""];
}

function verdict(job) {
  if (job.purpose !== "verify" || job.state !== "done") return null;
  const where = job.compared_frozen ? ", as far as its live build goes, which is frozen there" : "";
  return job.difference
    ? make("p", "why", `This read model is not what the log says${where}.`)
    : make("p", "job-line", `This read model is what the log says${where}.`);
}

function jobButtons(name, job) {
  const buttons = [];
  if (["building", "proving"].includes(job.state)) buttons.push(button("Pause", () => act(name, "/pause")));
  if (job.state === "paused") buttons.push(button("Resume", () => act(name, "/resume"), "primary"));
  if (job.state === "differs") {
    buttons.push(button("Accept and switch", () => sure(
      `Switch ${name} to ${job.build}?`,
      "Queries will show the new documents at once. The build that is live now is kept for a while, to roll back to.",
      "Switch", () => act(name, "/accept")), "primary"));
  }
  buttons.push(button("Cancel", () => sure(
    `Cancel the build ${job.build}?`, "What was built so far is dropped. The live build is not touched.",
    "Cancel the build", () => act(name, "/cancel"))));
  return make("div", "buttons", ...buttons);
}

const parkedFrom = (position) => (isKnown(position) ? `parked from position ${figure(position)} on` : "not parked");

function differences(difference) {
  const rows = difference.shown.map((document) => make("li", "",
    make("div", "key", document.key),
    document.fields.length > 0 ? make("div", "dim", `differs in ${document.fields.join(", ")}`) : null,
    make("pre", "live", `live  ${document.live ?? "no such document"}`),
    make("pre", "new", `new   ${document.new ?? "no such document"}`)));
  const parked = (difference.parked_shown ?? []).map((key) => make("li", "",
    make("div", "key", key.key),
    make("div", "dim", `${parkedFrom(key.live)} in the live build, ${parkedFrom(key.new)} in the new one`)));
  const counted = [];
  if (difference.documents > 0) counted.push(difference.documents === 1 ? "1 document differs" : `${number.format(difference.documents)} documents differ`);
  if (difference.parked > 0) counted.push(`${several(difference.parked, "key")} not parked alike`);
  const details = make("details", "",
    make("summary", "", counted.join(", ")),
    make("ul", "rows", ...rows, ...parked));
  details.open = true;
  return details;
}

function parkedIn(parked) {
  const rows = parked.shown.map((key) => make("li", "",
    make("div", "key", key.key), make("div", "dim", `from position ${key.position} on: ${key.error}`)));
  return make("details", "",
    make("summary", "", `${several(parked.keys, "parked key")} in this build: what came later is missing`),
    make("ul", "rows", ...rows));
}

function jobOf(name, job, standsStill) {
  const bar = make("progress", standsStill || ["paused", "differs"].includes(job.state) ? "wait" : "");
  bar.max = 100;
  bar.value = job.percent;
  bar.setAttribute("aria-label", `${job.build}, ${job.percent} %`);
  const title = `${PURPOSES[job.purpose]} ${job.build}${job.as_of ? ` as of ${job.as_of}` : ""}`;
  const proof = job.completion
    ? `${several(job.completion.documents, "document")} at position ${figure(job.completion.position)} · digest ${job.completion.digest.slice(0, 16)}…`
    : null;
  return make("section", "job",
    make("div", "job-head", make("strong", "", title), isActive(job) ? make("span", "dim", `${job.percent} %`) : null, tag(jobTag(job, standsStill))),
    isActive(job) ? bar : null,
    make("p", "job-line", jobLine(job, standsStill)),
    proof ? make("p", "job-line", proof) : null,
    job.error ? make("p", "why", job.error) : null,
    verdict(job),
    job.difference ? differences(job.difference) : null,
    job.parked ? parkedIn(job.parked) : null,
    isActive(job) ? jobButtons(name, job) : null);
}

function deadLetters(name, parked) {
  const rows = (letters.get(name) ?? []).map((letter) => make("li", "",
    make("div", "row-head", make("span", "key", letter.key),
      button("Retry", () => act(name, `/retry?key=${encodeURIComponent(letter.key)}`, mended)),
      button("Skip the event", () => sure(
        `Skip ${letter.event} at ${letter.position}?`,
        `It is left out of ${letter.key}, in this build and in later ones, for as long as the store and the log's history stay: in another store or history it is to be skipped again. What waits behind it is folded. Check first: if a new build has not parked the key, a rebuild mends it and nothing is left out.`,
        "Skip it", () => act(name, `/skip?key=${encodeURIComponent(letter.key)}`, mended)))),
    make("div", "dim", `${letter.event} at position ${letter.position}: ${letter.error}`)));
  const more = parked > rows.length ? make("p", "dim", `The first ${rows.length} are shown; \`dramatis projections dead-letters ${name}\` lists all.`) : null;
  return make("details", "", make("summary", "", `${several(parked, "parked key")}: later events wait`), make("ul", "rows", ...rows), more);
}

function dropButton(name, build) {
  return button(`Drop ${build.build}`, () => sure(
    `Drop ${build.build}?`,
    `It shows ${name} as of position ${build.as_of}. Whoever reads it is told that it is not there; it can be built again.`,
    "Drop it", () => act(name, `/drop?build=${encodeURIComponent(build.build)}`)));
}

function kept(standing) {
  if (standing.kept.length === 0) return null;
  const line = (build) => {
    const warm = build.warm_until && build.warm_until > Date.now();
    const what = build.as_of ? `as of position ${build.as_of}` : warm ? "kept warm" : "kept, not up to date";
    return make("li", "", make("div", "row-head",
      make("span", "", make("span", "key", build.build), ` ${what}, until ${time.format(build.drop_at)}`),
      build.as_of ? dropButton(standing.name, build) : null));
  };
  return make("details", "", make("summary", "", several(standing.kept.length, "other build")), make("ul", "rows", ...standing.kept.map(line)));
}

function buttons(standing) {
  const { name } = standing;
  const row = [];
  if (["unsupported", "foreign", "standby"].includes(standing.state)) return null;
  if (!isActive(standing.job)) {
    row.push(button("Rebuild", () => act(name, "/rebuild")), button("Check", () => act(name, "/verify")));
    const back = standing.kept.filter((build) => !build.as_of).at(-1);
    if (back) {
      row.push(button(`Roll back to ${back.build}`, () => sure(
        `Roll ${name} back to ${back.build}?`, `Queries get it instead of ${standing.build}, which is kept for a while.`,
        "Roll back", () => act(name, "/rollback"))));
    }
  }
  return row.length > 0 ? make("div", "buttons", ...row) : null;
}

function outcomeOf(name) {
  const outcome = outcomes.get(name);
  if (!outcome) return null;
  const line = make("p", outcome.isBad ? "why" : "job-line", outcome.text);
  line.setAttribute("role", "status");
  return line;
}

function card(standing, { standsStill, isSaidOnce }) {
  return [
    make("div", "model-head", make("h2", "", standing.name), make("span", "build", `${standing.build || "no build"} · version ${standing.version}`), tag(STATES[standing.state] ?? [standing.state, ""])),
    figures(standing),
    standing.error && !isSaidOnce ? make("p", standing.state === "unsupported" ? "job-line" : "why", standing.error) : null,
    standing.job ? jobOf(standing.name, standing.job, standsStill) : null,
    outcomeOf(standing.name),
    standing.parked > 0 && letters.has(standing.name) ? deadLetters(standing.name, standing.parked) : null,
    kept(standing),
    buttons(standing),
  ].filter(Boolean);
}

// Whether a build that is to go on does not: its read model waits, or it has not moved for a while.
function standsStill({ name, state, job }) {
  if (!["building", "proving"].includes(job?.state)) return false;
  if (["retrying", "standby", "foreign", "stopped"].includes(state)) return true;
  const place = [job.build, job.state, job.position, job.events, job.documents_written].join();
  if (moves.get(name)?.place !== place) moves.set(name, { place, since: performance.now() });
  return job.state === "building" && performance.now() - moves.get(name).since > STANDS_STILL_MS;
}

// A card is drawn anew only when what it shows has changed; what was folded or unfolded stays so.
function draw(standing, isSaidOnce) {
  const more = { standsStill: standsStill(standing), isSaidOnce };
  const { name } = standing;
  const shown = JSON.stringify([standing, counts.get(name), letters.get(name), outcomes.get(name), more]);
  let known = cards.get(standing.name);
  if (!known) {
    known = { element: make("article", "model"), shown: "" };
    cards.set(standing.name, known);
    byId("projections").append(known.element);
  }
  if (known.shown === shown) return;
  known.shown = shown;
  const named = (details) => details.querySelector("summary").textContent.replace(/\d/g, "");
  const open = new Map([...known.element.querySelectorAll("details")].map((details) => [named(details), details.open]));
  const focused = known.element.contains(document.activeElement) ? document.activeElement.textContent : null;
  known.element.replaceChildren(...card(standing, more));
  for (const details of known.element.querySelectorAll("details")) details.open = open.get(named(details)) ?? details.open;
  if (focused) [...known.element.querySelectorAll("button, summary")].find((e) => e.textContent === focused)?.focus();
}

// A store that does not answer must not hide how the read models stand: that is when they are looked at.
async function readLetters(name) {
  try {
    letters.set(name, (await ask(pathOf(name, "/dead_letters"))).letters);
  } catch (error) {
    if (error.isRefused) throw error;
  }
}

// What several read models are said to fail by is said once: by the store's own line while that does not
// answer, or else for all of them together.
function together(standings, reasons) {
  const isStoreAway = reasons.some((reason) => reason.startsWith("the read-model store does not answer"));
  const alike = new Map();
  for (const { name, state, error } of standings) {
    if (error && state !== "unsupported") alike.set(error, [...(alike.get(error) ?? []), name]);
  }
  const once = new Set(standings.filter(({ state, error }) => (isStoreAway && state === "retrying") || alike.get(error)?.length > 1).map(({ name }) => name));
  const isSaid = (reason) => standings.some(({ name, error }) => once.has(name) && reason.startsWith(`projection ${name} `) && reason.endsWith(error));
  const lines = reasons.filter((reason) => !isSaid(reason));
  const isOfStore = (name) => isStoreAway && standings.find((standing) => standing.name === name).state === "retrying";
  for (const [error, names] of alike) {
    if (names.length > 1 && !names.every(isOfStore)) lines.push(`${names.length} read models: ${error}`);
  }
  return { once, lines };
}

// Asked for beside how the read models stand, which waits for no count; once at a time.
async function count() {
  if (isCounting || performance.now() - countedAt < COUNT_EVERY_MS) return;
  isCounting = true;
  try {
    for (const { name, documents } of await ask("/api/projections?counts=true")) {
      if (documents !== undefined) counts.set(name, documents);
    }
    countedAt = performance.now();
  } catch { /* the next look asks again, and says what is wrong */ }
  isCounting = false;
}

async function refresh() {
  const standings = await ask("/api/projections?counts=false");
  count();
  const health = await ask("/api/health");
  const { once, lines } = together(standings, health.reasons ?? []);
  byId("health").className = health.status === "ok" ? "health" : "health bad";
  byId("health").textContent = health.status === "ok" ? "All is well" : lines.join(" · ") || health.status;
  for (const standing of standings) {
    delete standing.events;
    if (standing.parked === 0) letters.delete(standing.name);
    else await readLetters(standing.name);
    draw(standing, once.has(standing.name));
  }
}

// A refused token is an answer; the form says which is wanted.
function failed({ isRefused, message }) {
  byId("health").className = isRefused ? "health" : "health bad";
  byId("health").textContent = isRefused ? "Not shown without a token that may see it" : `No answer: ${message}`;
}

async function keepUp() {
  try {
    await refresh();
  } catch (error) {
    failed(error);
  }
  setTimeout(keepUp, document.hidden ? 5 * ASK_EVERY_MS : ASK_EVERY_MS);
}

keepUp();
