// The page of admins in a real headless Chromium: what its buttons do to a real server.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, test } from "node:test";

import { launch } from "./browser.mjs";
import { Server } from "./server.mjs";

let server;
let browser;
let page;
const faults = [];

before(async () => {
  server = await Server.start();
  browser = await launch();
  page = await (await browser.newContext()).newPage();
  page.on("pageerror", (error) => faults.push(error.stack));
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  const body = JSON.stringify({ user: "alice", room: "den", title: "Den" });
  const opened = await fetch(`${server.url}/api/rooms`, { method: "POST", headers: { "content-type": "application/json" }, body });
  assert.equal(opened.status, 201);
  await page.goto(`${server.url}/admin`);
});

after(async () => {
  await browser.close();
  await server.stop();
});

const card = (name) => page.locator(".model", { has: page.locator("h2", { hasText: new RegExp(`^${name}$`) }) });
const build = (name) => card(name).locator(".build");
const click = (name, text) => card(name).getByRole("button", { name: text }).click();

test("a read model is rebuilt, rolled back and checked", async () => {
  await build("rooms").filter({ hasText: "rooms@1" }).waitFor();
  await click("rooms", "Rebuild");
  await build("rooms").filter({ hasText: "rooms@2" }).waitFor();
  await card("rooms").locator(".job", { hasText: "at position" }).waitFor();
  await click("rooms", "Roll back to rooms@1");
  await page.getByRole("button", { name: "Roll back", exact: true }).click();
  await build("rooms").filter({ hasText: "rooms@1" }).waitFor();
  await click("rooms", "Check");
  await card("rooms").locator(".job", { hasText: "Check rooms@3" }).locator(".state", { hasText: "the same" }).waitFor();
  await page.locator("#health", { hasText: "All is well" }).waitFor();
  assert.deepEqual(faults, [], "the browser's console is quiet");
});

test("a question that is answered with no changes nothing", async () => {
  await click("rooms", "Roll back to rooms@2");
  await page.getByRole("button", { name: "Leave it" }).click();
  const standing = await (await fetch(`${server.url}/api/projections/rooms`)).json();
  assert.equal(standing.build, "rooms@1");
  assert.deepEqual(faults, []);
});

test("a build as of a position is dropped once that was confirmed", async () => {
  const { position } = await (await fetch(`${server.url}/api/projections/rooms`)).json();
  const ordered = await fetch(`${server.url}/api/projections/rooms/as_of?position=${position}`, { method: "POST" });
  const { build: past } = await ordered.json();
  const kept = async () => (await (await fetch(`${server.url}/api/projections/rooms`)).json()).kept.map((kept) => kept.build);
  const line = card("rooms").locator("li", { has: page.locator(".key", { hasText: past }) });
  await line.waitFor({ state: "attached" });
  await card("rooms").locator("summary", { hasText: "other builds" }).click();
  await click("rooms", `Drop ${past}`);
  await page.getByRole("button", { name: "Leave it" }).click();
  assert.ok((await kept()).includes(past), "a question answered with no drops nothing");
  await click("rooms", `Drop ${past}`);
  await page.getByRole("button", { name: "Drop it" }).click();
  await line.waitFor({ state: "detached" });
  assert.deepEqual(await kept(), ["rooms@2"], "what a roll back needs stays");
  assert.equal(await card("rooms").getByRole("button", { name: "Drop rooms@2" }).count(), 0);
  assert.deepEqual(faults, []);
});

test("a store that does not answer hides no read model", async () => {
  const own = await browser.newPage();
  await own.route("**/api/projections?*", async (route) => {
    const response = await route.fetch();
    const json = (await response.json()).map((standing) => ({ ...standing, parked: 1 }));
    await route.fulfill({ response, json });
  });
  const failed = { status: 503, contentType: "application/problem+json", body: '{"detail":"the store failed"}' };
  await own.route("**/dead_letters", (route) => route.fulfill(failed));
  await own.goto(`${server.url}/admin`);
  const standings = await (await fetch(`${server.url}/api/projections`)).json();
  await own.locator(".model").nth(standings.length - 1).waitFor();
  await own.locator("#health", { hasText: "All is well" }).waitFor();
  await own.close();
});

// A page of its own to which the server tells what `change` makes of its read models, and of its health.
async function told(change, health = { status: "ok" }) {
  const own = await browser.newPage();
  await own.route("**/api/projections?*", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: (await response.json()).map(change) });
  });
  await own.route("**/api/health", (route) => route.fulfill({ json: health }));
  await own.goto(`${server.url}/admin`);
  const of = (name) => own.locator(".model", { has: own.locator("h2", { hasText: new RegExp(`^${name}$`) }) });
  await of("rooms").locator(".figures").waitFor();
  return { own, of };
}

// Without the questions that are on their way.
async function closed(own) {
  await own.unrouteAll({ behavior: "ignoreErrors" });
  await own.close();
}

const JOB = {
  build: "rooms@9", purpose: "verify", state: "done", position: "7", target: "7", percent: 100, events: 8, events_per_second: 900,
  documents_written: 3, worked_ms: 9, completion: { position: "7", documents: 3, digest: "0".repeat(64) },
};
const DIFFERENT = { documents: 1, shown: [{ key: "room-main.den", fields: ["title"], live: '{"title":"Dan"}', new: '{"title":"Den"}' }], parked: 0 };
const APART = { documents: 0, shown: [], parked: 1, parked_shown: [{ key: "room-main.den", live: "5", new: null }] };

test("a check that found differences is bad and shows them, one that found none says so", async () => {
  const differences = { rooms: DIFFERENT, members: APART };
  const { own, of } = await told((standing) => ({ ...standing, job: { ...JOB, build: `${standing.name}@9`, difference: differences[standing.name] } }));
  for (const [name, shown] of [["rooms", '{"title":"Dan"}'], ["members", "parked from position 5 on in the live build, not parked in the new one"]]) {
    await of(name).locator(".job .state.bad", { hasText: "differs" }).waitFor();
    assert.ok(await of(name).getByText(shown).isVisible(), `${name}: ${shown}`);
    assert.equal(await of(name).locator(".job .state.good").count(), 0, name);
  }
  await of("members").locator("summary", { hasText: "1 key not parked alike" }).waitFor();
  await of("threads").locator(".job .state.good", { hasText: "the same" }).waitFor();
  // Whoever has seen enough folds them away, and they stay so.
  await of("rooms").locator("summary", { hasText: "1 document differs" }).click();
  await of("rooms").getByText('{"title":"Dan"}').waitFor({ state: "hidden" });
  await closed(own);
});

test("what came of trying a key again is said", async () => {
  const { own, of } = await told((standing) => (standing.name === "rooms" ? { ...standing, parked: 1 } : standing));
  const letters = [{ key: "room-main.den", position: "5", event: "RoomRenamed", error: "out of place" }];
  await own.route("**/dead_letters", (route) => route.fulfill({ json: { letters } }));
  const answers = [{ events: 0, parked: "still out of place" }, { events: 2, parked: "now at 7" }, { events: 1 }];
  await own.route("**/retry?*", (route) => route.fulfill({ json: { key: "room-main.den", ...answers.shift() } }));
  await of("rooms").locator("summary", { hasText: "parked key" }).click();
  for (const said of ["room-main.den is parked still: still out of place", "now at 7. Before that 2 events that waited were folded.", "room-main.den goes on: 1 event that waited was folded."]) {
    await of("rooms").getByRole("button", { name: "Retry" }).click();
    await of("rooms").locator('[role="status"]', { hasText: said }).waitFor();
  }
  await closed(own);
});

test("a store that is away is said once, and a build that waits for it shows no rate", async () => {
  const why = "Server selection timeout: No available servers";
  const error = `the read-model store failed: ${why}`;
  const building = { ...JOB, purpose: "rebuild", state: "building", percent: 40, eta_ms: 60_000, completion: undefined };
  const names = (await (await fetch(`${server.url}/api/projections`)).json()).map(({ name }) => name);
  const reasons = [`the read-model store does not answer: ${why}`, ...names.map((name) => `projection ${name} failed 6 times in a row: ${error}`)];
  const { own, of } = await told((standing) => ({ ...standing, state: "retrying", error, job: building }), { status: "degraded", reasons });
  await own.locator("#health", { hasText: why }).waitFor();
  assert.equal((await own.locator("body").innerText()).split(why).length - 1, 1);
  await of("rooms").locator(".job .state", { hasText: "stands still" }).waitFor();
  const line = await of("rooms").locator(".job").innerText();
  assert.ok(line.includes("position 7 of 7") && !line.includes("events/s") && !line.includes("left"), line);
  await closed(own);
});

test("what another process keeps is said once", async () => {
  const error = "another process keeps it in this store: give each data directory a store of its own";
  const { own } = await told((standing) => ({ ...standing, state: "standby", error }), {
    status: "degraded", reasons: ["rooms", "members"].map((name) => `projection ${name} is not kept: ${error}`).concat("projection rooms has 1 key parked"),
  });
  await own.locator("#health", { hasText: "projection rooms has 1 key parked" }).waitFor();
  assert.equal((await own.locator("body").innerText()).split(error).length - 1, 1);
  await closed(own);
});

test("what is not known of a build is left out", async () => {
  const cancelled = { ...JOB, purpose: "rebuild", state: "cancelled", position: null, events: 0, events_per_second: 0, completion: undefined };
  const { own, of } = await told((standing) => ({ ...standing, job: cancelled }));
  await of("rooms").locator(".job .state", { hasText: "cancelled" }).waitFor();
  const line = await of("rooms").locator(".job").innerText();
  assert.ok(!line.includes("–") && !line.includes("position"), line);
  await closed(own);
});

test("documents are counted once the server answers", async () => {
  const own = await browser.newPage();
  let refusals = 1;
  const refused = { status: 503, contentType: "application/problem+json", body: '{"detail":"not yet"}' };
  await own.route("**/api/projections?*", (route) => (refusals-- > 0 ? route.fulfill(refused) : route.continue()));
  await own.goto(`${server.url}/admin`);
  const rooms = own.locator(".model", { has: own.locator("h2", { hasText: /^rooms$/ }) });
  await rooms.locator(".figures dd").first().filter({ hasText: "1" }).waitFor({ timeout: 8_000 });
  await closed(own);
});

test("how read models stand is shown, and acted upon, while their documents are counted", async () => {
  const own = await browser.newPage();
  let [counting, most] = [0, 0];
  let release;
  const released = new Promise((resolve) => { release = resolve; });
  await own.route("**/api/projections?counts=true", async (route) => {
    counting += 1;
    most = Math.max(most, counting);
    await released;
    counting -= 1;
    await route.continue();
  });
  await own.goto(`${server.url}/admin`);
  const members = own.locator(".model", { has: own.locator("h2", { hasText: /^members$/ }) });
  const documents = members.locator(".figures dd").first();
  await documents.filter({ hasText: "–" }).waitFor();
  await members.getByRole("button", { name: "Check" }).click();
  await members.locator(".job .state", { hasText: "the same" }).waitFor();
  release();
  await documents.filter({ hasText: "1" }).waitFor();
  assert.equal(most, 1, "they are counted once at a time");
  await closed(own);
});

test("where there are tokens the page asks for an integration's, and acts with it", async () => {
  const guarded = await Server.start({
    prepare: async (made) => {
      const key = path.join(made.root, "token.key");
      await made.run("token", "--new-key", key);
      made.env = { DRAMATIS__AUTH__TOKEN_KEY_FILE: key };
    },
  });
  const own = await browser.newPage();
  const models = own.locator(".model", { has: own.locator("h2") });
  const use = async (token) => {
    await own.fill("#token", token);
    await own.getByRole("button", { name: "Use it" }).click();
  };
  await own.goto(`${guarded.url}/admin`);
  await own.locator("#token-why", { hasText: "asks for the token" }).waitFor();
  await own.locator("#health", { hasText: "Not shown without a token" }).waitFor();
  await use(await guarded.run("token", "--user", "alice", "--for", "1h"));
  await own.locator("#token-why", { hasText: "only integrations" }).waitFor();
  await use(await guarded.run("token", "--user", "integration:ops", "--for", "1h"));
  await models.filter({ hasText: "rooms@1" }).getByRole("button", { name: "Rebuild" }).click();
  await models.filter({ hasText: "rooms@2" }).waitFor();
  assert.equal(await own.locator("#token-form").isVisible(), false);
  assert.equal(await own.locator("#problem").isVisible(), false);
  await own.close();
  await guarded.stop();
});
