// A server, a browser, and who comes to its page in the tests of one file: they leave behind each test, and
// the console of their browser was quiet.

import assert from "node:assert/strict";
import { after, afterEach, before } from "node:test";

import { connect } from "../../src/web/ui/client.js";
import { Person, launch } from "./browser.mjs";
import { Server } from "./server.mjs";

export let server;
export let owner;
let browser;
let people = [];

before(async () => {
  server = await Server.start();
  browser = await launch();
  owner = connect({ url: server.url, user: "owner" });
});

after(async () => {
  owner.close();
  await browser.close();
  await server.stop();
});

afterEach(async () => {
  const faults = people.flatMap(({ faults }) => faults);
  for (const person of people) await person.leave();
  people = [];
  assert.deepEqual(faults, [], "the browser's console is quiet");
});

/** Someone who opens the page, of this server unless another one's URL is given. */
export async function come(name, options, url = server.url) {
  const person = await Person.come(browser, url, name, options);
  people.push(person);
  return person;
}
