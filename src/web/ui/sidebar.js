// The rooms: list, search, opening one, and the drawer that holds them on a phone.

import { bareId, byId, clockText, dayText, idProblem, make, personal, recall, remember, say } from "./dom.js";

const REFRESH_MS = 10_000;
const REFRESH_GAP_MS = 1_000;

export class Sidebar {
  /**
   * @param {import("/client.js").Client} client
   * @param {object} on `pick(room)`, `listed()`, and `unread(room)`: a number, or null for a room that is not followed
   */
  constructor(client, on) {
    this.client = client;
    this.on = on;
    this.rooms = [];
    this.current = null;
    this.refreshedAt = 0;
    this.timer = null;
    this.countsKey = `seen-counts:${client.user}`;
    this.counts = new Map(Object.entries(JSON.parse(recall("localStorage", this.countsKey) ?? "{}")));
    this.wireDrawer();
    this.wireForm();
    this.search = byId("room-search");
    this.search.addEventListener("input", () => this.draw());
    this.search.addEventListener("keydown", (event) => this.searchKey(event));
    byId("rooms").addEventListener("click", (event) => {
      const room = event.target.closest("button")?.dataset.room;
      if (room !== undefined) this.pick(room);
    });
    byId("rooms").addEventListener("keydown", (event) => this.moveFocus(event));
    setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  pick(room) {
    this.drawer(false);
    this.search.value = "";
    this.on.pick(room);
  }

  setCurrent(room) {
    this.current = room;
    this.draw();
  }

  entryOf(room) {
    return this.rooms.find((entry) => entry.room === room);
  }

  /** The room above (-1) or below (1) the current one. */
  neighbour(step) {
    const at = this.rooms.findIndex(({ room }) => room === this.current);
    return this.rooms[(at + step + this.rooms.length) % this.rooms.length]?.room;
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
      this.rooms = (await this.client.api.rooms()).rooms ?? [];
      say(byId("rooms-note"), this.rooms.length === 0 ? "No rooms yet. Open the first one with ＋." : "");
    } catch {
      // The banner tells of the connection; the list stays as it was.
      if (this.rooms.length === 0) say(byId("rooms-note"), "The list of rooms is not to be had now.");
    }
    this.draw();
    this.on.listed();
  }

  draw() {
    const wanted = this.search.value.trim().toLowerCase();
    const shown = this.rooms.filter(({ room, title }) => `${title} ${room}`.toLowerCase().includes(wanted));
    const list = byId("rooms");
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.room : null;
    let news = 0;
    list.replaceChildren(...shown.map((room) => {
      const fresh = this.fresh(room);
      if (room.room !== this.current) news += fresh;
      return this.entry(room, fresh);
    }));
    if (focused !== null) list.querySelector(`[data-room="${CSS.escape(focused)}"]`)?.focus();
    say(byId("drawer-news"), news > 0 ? short(news) : "");
    remember("localStorage", this.countsKey, JSON.stringify(Object.fromEntries(this.counts)));
  }

  // Messages not seen yet: what the server counts, or else what came since the last look.
  fresh({ room, message_count }) {
    const isInSight = room === this.current && !document.hidden;
    if (isInSight || !this.counts.has(room)) this.counts.set(room, message_count);
    const counted = this.on.unread(room);
    if (isInSight) return 0;
    return counted ?? Math.max(0, message_count - this.counts.get(room));
  }

  entry({ room, title, member_count, message_count, last_message, last_message_at, closed_at }, fresh) {
    const by = last_message?.by === this.client.user ? "You" : bareId(last_message?.by ?? "");
    const last = last_message ? `${by}: ${personal(last_message.text) || "message removed"}` : "No messages yet";
    const badge = fresh > 0 ? make("span", "count", short(fresh)) : null;
    badge?.setAttribute("aria-label", `${fresh} unread`);
    const entry = make("button", "room-entry",
      make("span", "room-sign", closed_at ? "🔒" : "#"),
      make("span", "room-name", title || room),
      make("span", "room-at", last_message_at ? shortTime(new Date(last_message_at)) : ""),
      make("span", "room-last", last), badge);
    entry.type = "button";
    entry.dataset.room = room;
    entry.title = `${room}: ${member_count} members, ${message_count} messages`;
    entry.classList.toggle("fresh", fresh > 0);
    if (room === this.current) entry.setAttribute("aria-current", "page");
    return make("li", "", entry);
  }

  searchKey(event) {
    if (event.key === "Enter") {
      const first = byId("rooms").querySelector("button");
      if (first) this.pick(first.dataset.room);
    } else if (event.key === "ArrowDown") {
      byId("rooms").querySelector("button")?.focus();
    } else if (event.key === "Escape") {
      this.search.value = "";
      this.draw();
    } else return;
    event.preventDefault();
  }

  moveFocus(event) {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = event.target.closest("li")?.[step]?.querySelector("button") ?? (event.key === "ArrowUp" ? this.search : null);
    next?.focus();
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

  /** Asks for a room to open; `id` is proposed. */
  ask(id = "") {
    byId("room-form").reset();
    say(byId("room-form-error"), "");
    byId("room-form-title").value = byId("room-form-id").value = id;
    this.isOwnId = id !== "";
    byId("room-dialog").showModal();
  }

  wireForm() {
    const title = byId("room-form-title");
    const id = byId("room-form-id");
    byId("new-room").addEventListener("click", () => this.ask());
    byId("room-form-cancel").addEventListener("click", () => byId("room-dialog").close());
    id.addEventListener("input", () => { this.isOwnId = id.value !== ""; });
    title.addEventListener("input", () => {
      if (!this.isOwnId) id.value = slug(title.value);
    });
    byId("room-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      const room = id.value.trim();
      const problem = idProblem("The id", room) ?? await this.openRoom(room, title.value.trim() || room);
      say(byId("room-form-error"), problem);
      if (problem) return;
      byId("room-dialog").close();
      this.refreshSoon();
      this.pick(room);
    });
  }

  // Null, or why it did not work. It is asked for now, or not at all.
  async openRoom(room, title) {
    if (this.client.status.state !== "live") return "There is no connection. Try again once there is.";
    try {
      await this.client.command(room, "open_room", { title }, { isStored: false });
      return null;
    } catch (error) {
      return error.message;
    }
  }
}

const short = (count) => (count > 99 ? "99+" : String(count));

function shortTime(at) {
  const day = dayText(at);
  if (day === "Today") return clockText(at);
  return day === "Yesterday" ? day : at.toLocaleDateString(undefined, { month: "short", day: "numeric" });
}

// "Tea & biscuits" becomes "tea-biscuits".
function slug(title) {
  return title.normalize("NFKD").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 64);
}
