// The page of admins: how every read model stands, what is built beside it, what is parked.
import { byId, make, recall, remember, say } from "./dom.js";

const ASK_EVERY_MS = 1_000;
// Counting documents takes longer the more there are.
const COUNT_EVERY_MS = 15_000;

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
const PURPOSES = { rebuild: "Rebuild", verify: "Check", as_of: "As it was" };

const number = new Intl.NumberFormat();
const time = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const counts = new Map();
const letters = new Map();
const cards = new Map();
let countedAt = -Infinity;

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

async function act(name, what) {
  try {
    say(byId("problem"), "");
    await ask(pathOf(name, what), "POST");
  } catch (error) {
    if (!error.isRefused) say(byId("problem"), `${name}: ${error.message}`); // else the form says it
  }
  letters.delete(name);
  await refresh().catch(failed);
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

function jobLine(job) {
  const parts = [
    `position ${figure(job.position)} of ${figure(job.target)}`,
    `${number.format(job.events_per_second)} events/s`,
    `${several(job.documents_written, "document")} written`,
  ];
  if (job.state === "building" && job.eta_ms !== undefined) parts.push(`${duration(job.eta_ms)} left`);
  if (!isActive(job)) parts.push(`took ${duration(job.worked_ms)}`);
  return parts.join(" · ");
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

function differences(difference) {
  const rows = difference.shown.map((document) => make("li", "",
    make("div", "key", document.key),
    document.fields.length > 0 ? make("div", "dim", `differs in ${document.fields.join(", ")}`) : null,
    make("pre", "live", `live  ${document.live ?? "no such document"}`),
    make("pre", "new", `new   ${document.new ?? "no such document"}`)));
  const parked = (difference.parked_shown ?? []).map((key) => make("li", "",
    make("div", "key", key.key),
    make("div", "dim", `parked from position ${figure(key.live)} on in the live build, from ${figure(key.new)} on in the new one`)));
  const counted = [];
  if (difference.documents > 0) counted.push(difference.documents === 1 ? "1 document differs" : `${number.format(difference.documents)} documents differ`);
  if (difference.parked > 0) counted.push(`${several(difference.parked, "key")} not parked alike`);
  return make("details", "",
    make("summary", "", counted.join(", ")),
    make("ul", "rows", ...rows, ...parked));
}

function parkedIn(parked) {
  const rows = parked.shown.map((key) => make("li", "",
    make("div", "key", key.key), make("div", "dim", `from position ${key.position} on: ${key.error}`)));
  return make("details", "",
    make("summary", "", `${several(parked.keys, "parked key")} in this build: what came later is missing`),
    make("ul", "rows", ...rows));
}

function jobOf(name, job) {
  const bar = make("progress", ["paused", "differs"].includes(job.state) ? "wait" : "");
  bar.max = 100;
  bar.value = job.percent;
  bar.setAttribute("aria-label", `${job.build}, ${job.percent} %`);
  const title = `${PURPOSES[job.purpose]} ${job.build}${job.as_of ? ` as of ${job.as_of}` : ""}`;
  const proof = job.completion
    ? `${several(job.completion.documents, "document")} at position ${figure(job.completion.position)} · digest ${job.completion.digest.slice(0, 16)}…`
    : null;
  return make("section", "job",
    make("div", "job-head", make("strong", "", title), isActive(job) ? make("span", "dim", `${job.percent} %`) : null, tag(JOB_STATES[job.state] ?? [job.state, ""])),
    isActive(job) ? bar : null,
    make("p", "job-line", jobLine(job)),
    proof ? make("p", "job-line", proof) : null,
    job.error ? make("p", "why", job.error) : null,
    job.difference ? differences(job.difference) : null,
    job.parked ? parkedIn(job.parked) : null,
    isActive(job) ? jobButtons(name, job) : null);
}

function deadLetters(name, parked) {
  const rows = (letters.get(name) ?? []).map((letter) => make("li", "",
    make("div", "row-head", make("span", "key", letter.key),
      button("Retry", () => act(name, `/retry?key=${encodeURIComponent(letter.key)}`)),
      button("Skip the event", () => sure(
        `Skip ${letter.event} at ${letter.position}?`,
        `It is left out of ${letter.key} for good, in this build and in later ones. What waits behind it is folded. Check first: if a new build has not parked the key, a rebuild mends it and nothing is left out.`,
        "Skip it", () => act(name, `/skip?key=${encodeURIComponent(letter.key)}`)))),
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

function card(standing) {
  return [
    make("div", "model-head", make("h2", "", standing.name), make("span", "build", `${standing.build || "no build"} · version ${standing.version}`), tag(STATES[standing.state] ?? [standing.state, ""])),
    figures(standing),
    standing.error ? make("p", standing.state === "unsupported" ? "job-line" : "why", standing.error) : null,
    standing.job ? jobOf(standing.name, standing.job) : null,
    standing.parked > 0 && letters.has(standing.name) ? deadLetters(standing.name, standing.parked) : null,
    kept(standing),
    buttons(standing),
  ].filter(Boolean);
}

// A card is drawn anew only when what it shows has changed; what was unfolded stays so.
function draw(standing) {
  const shown = JSON.stringify([standing, counts.get(standing.name), letters.get(standing.name)]);
  let known = cards.get(standing.name);
  if (!known) {
    known = { element: make("article", "model"), shown: "" };
    cards.set(standing.name, known);
    byId("projections").append(known.element);
  }
  if (known.shown === shown) return;
  known.shown = shown;
  const open = new Set([...known.element.querySelectorAll("details[open] > summary")].map((s) => s.textContent.replace(/\d/g, "")));
  const focused = known.element.contains(document.activeElement) ? document.activeElement.textContent : null;
  known.element.replaceChildren(...card(standing));
  for (const details of known.element.querySelectorAll("details")) {
    details.open = open.has(details.querySelector("summary").textContent.replace(/\d/g, ""));
  }
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

async function refresh() {
  const count = performance.now() - countedAt > COUNT_EVERY_MS;
  if (count) countedAt = performance.now();
  const standings = await ask(`/api/projections?counts=${count}`);
  for (const standing of standings) {
    if (standing.documents !== undefined) counts.set(standing.name, standing.documents);
    delete standing.documents;
    delete standing.events;
    if (standing.parked === 0) letters.delete(standing.name);
    else await readLetters(standing.name);
    draw(standing);
  }
  const health = await ask("/api/health");
  byId("health").className = health.status === "ok" ? "health" : "health bad";
  byId("health").textContent = health.status === "ok" ? "All is well" : (health.reasons ?? [health.status]).join(" · ");
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
