// A real headless Chromium, and what a person does in it.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

import { until } from "./server.mjs";

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

const HOW = { executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: FLAGS };

export const launch = () => chromium.launch(HOW);

/** A browser whose user forbids all sites to keep anything: it has one context, which `close` ends with it. */
export async function launchForgetful() {
  const profile = await mkdtemp(path.join(tmpdir(), "dramatis-profile-"));
  await mkdir(path.join(profile, "Default"));
  const preferences = { profile: { default_content_setting_values: { cookies: 2 } } };
  await writeFile(path.join(profile, "Default", "Preferences"), JSON.stringify(preferences));
  const context = await chromium.launchPersistentContext(profile, HOW);
  // It may still be writing there.
  context.on("close", () => rm(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }));
  return { newContext: () => context };
}

/** A person at a browser of their own; `tab()` opens one more of their tabs. */
export class Person {
  static async come(browser, url, name, { room, ...context } = {}) {
    const person = new Person();
    person.name = name;
    person.url = url;
    person.faults = []; // what the browser's console complains of
    person.context = await browser.newContext({ viewport: { width: 1200, height: 760 }, reducedMotion: "reduce", ...context });
    person.page = await person.tab(room);
    return person;
  }

  async tab(room) {
    const page = await this.context.newPage();
    page.on("pageerror", (error) => this.faults.push(error.stack));
    page.on("console", (message) => {
      // That there is no connection is what some tests are about.
      const isExpected = /ERR_CONNECTION|ERR_EMPTY_RESPONSE|ERR_SOCKET|ERR_NETWORK|WebSocket|Failed to load resource/.test(message.text());
      if (message.type() === "error" && !isExpected) this.faults.push(message.text());
    });
    await page.goto(`${this.url}/?user=${this.name}${room ? `#${room}` : ""}`);
    return page;
  }

  async openRoom(title) {
    await this.isLive();
    await this.page.click("#new-room");
    await this.page.fill("#room-form-title", title);
    await this.page.press("#room-form-title", "Enter");
    await this.page.locator("#room-title", { hasText: title }).waitFor();
    await this.composer.waitFor();
    return decodeURIComponent(new URL(this.page.url()).hash.slice(1));
  }

  async join() {
    await this.page.click("#join");
    await this.composer.waitFor();
  }

  get composer() {
    return this.page.locator("#composer-place textarea");
  }

  async say(text) {
    await this.composer.fill(text);
    await this.composer.press("Enter");
  }

  message(text, page = this.page) {
    return page.locator("#timeline .message", { hasText: text });
  }

  async hears(text, page = this.page) {
    await this.message(text, page).first().waitFor();
  }

  /** All messages in sight, in their order. */
  texts(page = this.page) {
    return page.locator("#timeline .message .text").allInnerTexts();
  }

  async isLive(page = this.page) {
    await page.locator('#status[data-state="live"]').waitFor({ state: "attached" });
  }

  async act(text, label) {
    const message = this.message(text).first();
    await message.hover();
    await message.getByRole("button", { name: label, exact: true }).click();
  }

  /** A picture for whoever wants to look: DRAMATIS_SCREENSHOTS names the folder. */
  async picture(name, page = this.page) {
    const folder = process.env.DRAMATIS_SCREENSHOTS;
    if (!folder) return;
    await mkdir(folder, { recursive: true });
    await page.screenshot({ path: path.join(folder, `${name}.png`) });
  }

  async leave() {
    await this.context.close();
  }
}

export { until };
