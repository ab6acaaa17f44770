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
  await card("rooms").locator(".job", { hasText: "Check rooms@3" }).locator(".state", { hasText: "done" }).waitFor();
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
