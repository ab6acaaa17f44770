// The page of admins in a real headless Chromium: what its buttons do to a real server.

import assert from "node:assert/strict";
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
