// The rooms: list, search, opening one, and the drawer that holds them on a phone.

import { OWN_STREAM, PHONE, arrange, bareId, byId, idProblem, make, personal, say, shield, shortTime } from "./dom.js";
import { PAGE_LEN, RoomList } from "./room-list.js";
import { SeenCounts } from "./seen-counts.js";
import { seen } from "./words.js";

const REFRESH_MS = 10_000;
const REFRESH_GAP_MS = 1_000;
const UNAUTHORIZED = 401;
/** Pages are larger where all rooms are asked for, because one is looked for. */
const SEARCHED_PAGE_LEN = 500;
const SEARCHED_PAGES_MAX = 40;
/** So far from the end of the list the next page is asked for. */
const NEXT_PX = 300;
/** Little of the list may be for this person to read: so deep it is gone through by itself, */
const FILLED_DEPTH_MAX = 2_000;
/** and so much deeper with each scroll. */
const SCROLLED_DEPTH_MAX = 1_000;

export class Sidebar {
  /**
   * @param {import("/client.js").Client} client
   * @param {object} on `pick(room)`, `listed()`, `unread(room)`: a number, or null for a room that is not
   *   followed, `read(room)`: the last revision read on any device, or null, `refused(room)`: how much of this person's writing was not taken there, and `unauthorized()`:
   *   the token holds no more, though another tab's line may stand
   */
  constructor(client, on) {
    this.client = client;
    this.on = on;
    this.list = new RoomList((page) => client.api.rooms(page));
    this.isSearching = false;
    this.isPressed = false;
    this.entries = new Map(); // room -> { element, signature }
    this.current = null;
    this.refreshedAt = 0;
    this.timer = null;
    this.counts = new SeenCounts(client.user);
    this.wireDrawer();
    this.wireForm();
    this.search = byId("room-search");
    this.search.addEventListener("input", () => {
      this.draw();
      this.findAll();
    });
    this.scroller = byId("rooms").parentElement;
    this.scroller.addEventListener("scroll", () => this.fill(this.list.depth + SCROLLED_DEPTH_MAX), { passive: true });
    this.search.addEventListener("keydown", (event) => this.searchKey(event));
    byId("rooms").addEventListener("click", (event) => {
      const room = event.target.closest("button")?.dataset.room;
      if (room !== undefined) this.pick(room);
    });
    byId("rooms").addEventListener("keydown", (event) => this.moveFocus(event));
    byId("rooms").addEventListener("pointerdown", ({ button: which }) => { this.isPressed = which === 0; });
    for (const name of ["pointerup", "pointercancel", "blur"]) window.addEventListener(name, () => this.isPressed && setTimeout(() => this.released()));
    setInterval(() => document.hidden || this.keepUp(), REFRESH_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  get rooms() {
    return this.list.rooms;
  }

  released() {
    this.isPressed = false;
    this.draw();
  }

  pick(room) {
    this.isPressed = false;
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
      await this.list.refresh();
    } catch ({ status }) {
      // The banner tells of the connection; the list stays as it was.
      if (status === UNAUTHORIZED) this.on.unauthorized();
    }
    this.draw();
    this.on.listed();
    if (this.search.value.trim() !== "") this.findAll();
    else this.fill(FILLED_DEPTH_MAX);
  }

  // Where more than the first page is held, the rest is looked at again as well, if not as often.
  async keepUp() {
    await this.refresh();
    if (!await this.list.review()) return;
    this.draw();
    this.on.listed();
  }

  async more(limit) {
    const isMore = await this.list.more(limit);
    this.draw();
    return isMore;
  }

  // As far as the list is in sight, and a little beyond.
  async fill(depthMax) {
    const isEndNear = () => this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < NEXT_PX;
    while (!this.list.isWhole && this.list.depth < depthMax && isEndNear() && await this.more(PAGE_LEN));
  }

  // A room that is looked for may be anywhere in the list.
  async findAll() {
    if (this.isSearching) return;
    this.isSearching = true;
    const wantsMore = () => this.search.value.trim() !== "";
    for (let page = 0; page < SEARCHED_PAGES_MAX && wantsMore(); page += 1) {
      if (!await this.more(SEARCHED_PAGE_LEN)) break;
    }
    this.isSearching = false;
    this.draw();
  }

  draw() {
    if (this.isPressed) return; // what moved under the pointer would not be clicked
    const wanted = this.search.value.trim().toLowerCase();
    const shown = this.rooms.filter(({ room, title }) => `${title} ${room}`.toLowerCase().includes(wanted));
    let news = 0;
    const elements = shown.map((room) => {
      const fresh = this.fresh(room);
      if (room.room !== this.current) news += fresh;
      return this.entry(room, fresh, this.on.refused(room.room));
    });
    arrange(byId("rooms"), elements);
    if (this.entries.size > this.rooms.length) this.forget();
    say(byId("rooms-note"), this.note(wanted, shown.length));
    say(byId("drawer-news"), news > 0 ? short(news) : "");
    this.counts.keep();
  }

  note(wanted, count) {
    if (count > 0) return "";
    const { hasFailed, isWhole } = this.list;
    if (this.isSearching || hasFailed === undefined) return "Looking through the rooms…";
    if (hasFailed && (this.rooms.length === 0 || !isWhole)) return "The list of rooms is not to be had now.";
    if (wanted === "") return isWhole ? "No rooms yet. Open the first one with ＋." : "None of the latest rooms is yours to read. Look for one, or open one with ＋.";
    return isWhole ? `No room of this name: “${wanted}”.` : `No room of this name among the ${this.rooms.length} latest.`;
  }

  forget() {
    const rooms = new Set(this.rooms.map(({ room }) => room));
    for (const room of this.entries.keys()) if (!rooms.has(room)) this.entries.delete(room);
  }

  // Messages not seen yet: what the server counts, or else what came since the last look in this browser, as far
  // as it was not read elsewhere.
  fresh({ room, message_count, last_message }) {
    const isInSight = room === this.current && !document.hidden;
    if (isInSight) this.counts.seen(room, message_count);
    else this.counts.listed(room, message_count);
    const counted = this.on.unread(room);
    if (isInSight) return 0;
    if (counted !== null) return counted;
    const read = this.on.read(room);
    const isKnown = read !== null && last_message;
    if (last_message?.by === this.client.user || (isKnown && read >= last_message.revision)) {
      this.counts.seen(room, message_count);
      return 0;
    }
    return Math.max(isKnown ? 1 : 0, this.counts.since(room, message_count));
  }

  // Its element stays the same while the list is drawn anew, so that a press on it meets its release.
  entry({ room, title, member_count, message_count, last_message, last_message_at, closed_at }, fresh, refused) {
    const by = last_message?.by === this.client.user ? "You" : bareId(last_message?.by ?? "");
    const last = refused > 0 ? [refused === 1 ? "A message was not sent" : `${refused} messages were not sent`]
      : last_message ? [`${by}: `, make("bdi", "", wordsOf(last_message))] : ["No messages yet"];
    const at = last_message_at ? shortTime(new Date(last_message_at)) : "";
    const isCurrent = room === this.current;
    const signature = JSON.stringify([title, member_count, message_count, closed_at, last.map((part) => part.textContent ?? part), at, fresh, refused, isCurrent]);
    const known = this.entries.get(room);
    if (known?.signature === signature) return known.element;
    const element = known?.element ?? make("li", "", make("button", "room-entry"));
    this.entries.set(room, { element, signature });
    const badge = fresh > 0 ? make("span", "count", short(fresh)) : null;
    badge?.setAttribute("aria-label", `${fresh} unread`);
    const entry = element.firstElementChild;
    entry.replaceChildren(
      make("span", "room-sign", closed_at ? "🔒" : "#"),
      make("span", "room-name", title || room),
      make("span", "room-at", at),
      make("span", refused > 0 ? "room-last refused" : "room-last", ...last), ...(badge ? [badge] : []));
    entry.type = "button";
    entry.dataset.room = room;
    entry.title = `${room}: ${member_count} members, ${message_count} messages`;
    entry.classList.toggle("fresh", fresh > 0);
    if (isCurrent) entry.setAttribute("aria-current", "page");
    else entry.removeAttribute("aria-current");
    return element;
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
    const wasOpen = document.body.classList.contains("drawer-open");
    document.body.classList.toggle("drawer-open", isOpen);
    byId("drawer-open").setAttribute("aria-expanded", String(isOpen));
    shield();
    if (wasOpen && !isOpen && this.phone.matches) byId("drawer-open").focus();
  }

  wireDrawer() {
    this.phone = window.matchMedia(PHONE);
    this.phone.addEventListener("change", shield);
    byId("drawer-open").addEventListener("click", () => {
      this.drawer(true);
      byId("drawer-close").focus();
    });
    for (const id of ["drawer-close", "backdrop"]) byId(id).addEventListener("click", () => this.drawer(false));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.drawer(false));
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
      const problem = idProblem("The id", room) ?? (room === OWN_STREAM ? "“me” is your own stream. Choose another id." : null) ?? await this.openRoom(room, title.value.trim() || room);
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

const wordsOf = ({ text }) => (personal(text) === "" ? "message removed" : seen(personal(text)));

const short = (count) => (count > 99 ? "99+" : String(count));

// "Tea & biscuits" becomes "tea-biscuits", "Über uns" becomes "uber-uns".
function slug(title) {
  return title.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 64);
}
