// The rooms: list, search, opening one, and the drawer that holds them on a phone.

import { byId, idProblem, make, personal, problemOf, say } from "./dom.js";

const REFRESH_MS = 5_000;
const REFRESH_GAP_MS = 1_000;
const SEARCH_FROM = 8;

export class Sidebar {
  // `pick(room)` is called when a person chooses a room.
  constructor(me, pick) {
    this.me = me;
    this.pick = pick;
    this.rooms = [];
    this.current = null;
    this.seen = new Map(); // room -> message count when last looked at
    this.refreshedAt = 0;
    this.timer = null;
    this.wireDrawer();
    this.wireForm();
    byId("room-search").addEventListener("input", () => this.draw());
    byId("rooms").addEventListener("click", (event) => {
      const room = event.target.closest("button")?.dataset.room;
      if (room === undefined) return;
      this.drawer(false);
      this.pick(room);
    });
    setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  setCurrent(room) {
    this.current = room;
    this.draw();
  }

  // Soon, and at most once a second however often it is asked.
  refreshSoon() {
    if (this.timer) return;
    const waitMs = Math.max(150, this.refreshedAt + REFRESH_GAP_MS - Date.now());
    this.timer = setTimeout(() => this.refresh(), waitMs);
  }

  async refresh() {
    clearTimeout(this.timer);
    this.timer = null;
    this.refreshedAt = Date.now();
    try {
      const response = await fetch("/api/rooms");
      if (!response.ok) throw new Error(await problemOf(response));
      this.rooms = (await response.json()).rooms ?? [];
      say(byId("rooms-note"), this.rooms.length === 0 ? "No rooms yet. Open the first one below." : "");
    } catch (error) {
      say(byId("rooms-note"), `The list of rooms is not to be had: ${error.message}`);
    }
    this.draw();
  }

  draw() {
    const searchRow = byId("room-search-row");
    searchRow.hidden = this.rooms.length <= SEARCH_FROM;
    const wanted = searchRow.hidden ? "" : byId("room-search").value.trim().toLowerCase();
    const shown = this.rooms.filter(({ room, title }) => `${title} ${room}`.toLowerCase().includes(wanted));
    const list = byId("rooms");
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.room : null;
    list.replaceChildren(...shown.map((room) => this.entry(room)));
    if (focused !== null) list.querySelector(`[data-room="${CSS.escape(focused)}"]`)?.focus();
  }

  entry({ room, title, member_count, message_count, last_message }) {
    const isCurrent = room === this.current;
    if (isCurrent || !this.seen.has(room)) this.seen.set(room, message_count);
    const fresh = Math.max(0, message_count - this.seen.get(room));
    const last = last_message ? `${last_message.by}: ${personal(last_message.text) || "message removed"}` : "no messages yet";
    const badge = fresh > 0 ? make("span", "count", fresh > 99 ? "99+" : String(fresh)) : null;
    badge?.setAttribute("aria-label", `${fresh} new`);
    const entry = make("button", "room-entry",
      make("span", "room-name", title || room), badge,
      make("span", "room-last", last));
    entry.type = "button";
    entry.dataset.room = room;
    entry.title = `${room}: ${member_count} members, ${message_count} messages`;
    if (isCurrent) entry.setAttribute("aria-current", "page");
    return make("li", "", entry);
  }

  drawer(isOpen) {
    document.body.classList.toggle("drawer-open", isOpen);
    byId("drawer-open").setAttribute("aria-expanded", String(isOpen));
  }

  wireDrawer() {
    byId("drawer-open").addEventListener("click", () => {
      this.drawer(true);
      byId("drawer-close").focus();
    });
    for (const id of ["drawer-close", "backdrop"]) byId(id).addEventListener("click", () => this.drawer(false));
    byId("sidebar").addEventListener("keydown", (event) => event.key === "Escape" && this.drawer(false));
  }

  wireForm() {
    const title = byId("new-room-title");
    const id = byId("new-room-id");
    let isOwnId = false;
    id.addEventListener("input", () => { isOwnId = id.value !== ""; });
    title.addEventListener("input", () => {
      if (!isOwnId) id.value = slug(title.value);
    });
    byId("new-room-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      const room = id.value.trim();
      const problem = idProblem("The id", room) ?? await this.openRoom(room, title.value.trim() || room);
      say(byId("new-room-error"), problem);
      if (problem) return;
      isOwnId = false;
      event.target.reset();
      byId("new-room").open = false;
      this.drawer(false);
      this.refreshSoon();
      this.pick(room);
    });
  }

  // Null, or why it did not work.
  async openRoom(room, title) {
    try {
      const response = await fetch("/api/rooms", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ user: this.me, room, title }),
      });
      return response.ok ? null : await problemOf(response);
    } catch (error) {
      return `The server was not reached: ${error.message}`;
    }
  }
}

// "Tea & biscuits" becomes "tea-biscuits".
function slug(title) {
  return title.normalize("NFKD").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 64);
}
