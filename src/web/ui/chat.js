// The page's composition: who am I, which room, and how the parts hear of each other.

import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { byId, idProblem, make, paintAvatar, problemOf, randomId, recall, remember, say } from "./dom.js";
import { ITEMS_MAX, Room } from "./room.js";
import { Sidebar } from "./sidebar.js";
import { Timeline, describe } from "./timeline.js";

const HISTORY_LIMIT = 50;
const ANNOUNCE_MS = 1_000;

class Chat {
  constructor(me) {
    this.me = me;
    this.room = null;
    this.pending = new Map(); // room -> messages on their way
    this.isLoadingHistory = false;
    this.news = [];
    byId("my-name").textContent = me;
    paintAvatar(byId("my-avatar"), me, me);
    this.sidebar = new Sidebar(me, (room) => { location.hash = encodeURIComponent(room); });
    this.timeline = new Timeline(
      { scroller: byId("scroller"), list: byId("timeline"), pill: byId("pill"), historyNote: byId("history-note") },
      me, this.timelineCalls());
    this.composer = new Composer({
      post: (text, kind, replyTo) => this.post(text, kind, replyTo),
      edit: (item, text) => this.ask("edit_message", { target: item.revision, text }),
      nick: (name) => this.ask("rename_member", { display_name: name }),
      editLast: () => {
        const last = this.room?.items.findLast((item) => item.type === "message" && item.by === me && !item.isRemoved);
        if (last) this.composer.edit(last);
      },
      list: () => this.timeline.focusLast(),
    });
    this.wire();
    this.connect();
    this.sidebar.refresh();
    this.enter(roomInAddress());
  }

  wire() {
    byId("join").addEventListener("click", () => this.join());
    byId("status-now").addEventListener("click", () => this.statusClicked());
    byId("change-name").addEventListener("click", () => {
      this.connection.stop();
      remember("sessionStorage", "user", "");
      const address = new URL(location.href);
      address.searchParams.delete("user");
      history.replaceState(null, "", address);
      location.reload();
    });
    window.addEventListener("hashchange", () => this.enter(roomInAddress()));
  }

  connect() {
    let session = recall("sessionStorage", "session");
    if (!session) {
      session = randomId();
      remember("sessionStorage", "session", session);
    }
    this.connection = new Connection(this.me, session, {
      state: (state, text, code) => this.status(state, text, code),
      ready: () => this.sidebar.refreshSoon(),
      event: (room, event) => this.event(room, event),
      reset: (room) => this.reset(room),
      live: (room) => this.live(room),
      denied: (room, text) => room === this.room?.id && say(byId("room-note"), text),
    });
  }

  status(state, text, code) {
    byId("status").dataset.state = state;
    byId("status-text").textContent = text;
    const now = byId("status-now");
    now.hidden = state !== "waiting" && state !== "closed";
    now.textContent = state === "waiting" ? "Now" : "Connect";
    this.closeCode = code;
  }

  statusClicked() {
    // A copied tab has its original's session: it takes one of its own.
    if (this.closeCode === 4507) this.connection.session = randomId();
    remember("sessionStorage", "session", this.connection.session);
    this.connection.retryNow();
  }

  enter(id) {
    if (id === null || id === this.room?.id) return;
    if (this.room) this.connection.unsubscribe(this.room.id);
    this.room = new Room(id);
    this.timeline.pending = this.pending.get(id) ?? [];
    this.timeline.show(this.room);
    this.composer.show(id);
    say(byId("room-note"), "");
    say(byId("join-error"), "");
    remember("sessionStorage", "room", id);
    this.sidebar.setCurrent(id);
    this.connection.subscribe(id);
    this.loadMembers();
    this.drawHead();
  }

  async loadMembers() {
    const room = this.room;
    try {
      const members = [];
      for (let more = true; more; ) {
        const after = members.length ? `&after=${encodeURIComponent(members.at(-1).member)}` : "";
        const response = await fetch(`/api/rooms/${encodeURIComponent(room.id)}/members?limit=500${after}`);
        if (!response.ok) throw new Error(await problemOf(response));
        const page = await response.json();
        members.push(...page.members);
        more = page.more;
      }
      room.setMembers(members);
    } catch {
      // The events tell who is in, as far as they are loaded.
    }
    room.membersKnown = true;
    if (room === this.room) this.drawHead();
  }

  reset(id) {
    if (id !== this.room?.id) return;
    const hadLost = this.room.oldest !== null;
    this.room.clear();
    this.timeline.show(this.room);
    if (hadLost) this.loadMembers();
  }

  live(id) {
    if (id !== this.room?.id) return;
    this.room.isLive = true;
    this.timeline.due();
    this.drawHead();
  }

  event(id, event) {
    if (id !== this.room?.id) return;
    const room = this.room;
    const version = room.version;
    if (event.command) this.settle(id, event.command);
    const item = room.append(event, this.timeline.isAtBottom || room.items.length < ITEMS_MAX);
    if (item?.type === "message" && room.isLive) {
      this.timeline.arrived();
      if (event.by !== this.me) this.announce(describe(room, item));
    } else {
      this.timeline.due();
    }
    if (room.version !== version) this.headDue();
    this.sidebar.refreshSoon();
  }

  // Reads out single messages, and only counts a flood.
  announce(text) {
    this.news.push(text);
    if (this.news.length > 1) return;
    setTimeout(() => {
      byId("announcer").textContent = this.news.length <= 3 ? this.news.join(". ") : `${this.news.length} new messages`;
      this.news = [];
    }, ANNOUNCE_MS);
  }

  headDue() {
    if (this.isHeadDue) return;
    this.isHeadDue = true;
    setTimeout(() => {
      this.isHeadDue = false;
      this.drawHead();
    }, 50);
  }

  drawHead() {
    const room = this.room;
    const listed = this.sidebar.rooms.find((entry) => entry.room === room.id);
    const title = room.title === room.id ? listed?.title ?? room.id : room.title;
    byId("room-title").textContent = title;
    byId("room-id").textContent = title === room.id ? "" : room.id;
    document.title = `${title} · dramatis`;
    const names = [...room.members.values()].sort((one, other) => one.localeCompare(other));
    byId("members").hidden = names.length === 0;
    byId("members-count").textContent = names.length === 1 ? "1 member" : `${names.length} members`;
    byId("members-list").replaceChildren(...names.map((name) => make("li", "", name)));
    const isMember = room.members.has(this.me);
    byId("composer").hidden = !isMember || room.isClosed;
    byId("join-row").hidden = isMember || room.isClosed || !room.membersKnown;
    if (room.isClosed) say(byId("room-note"), "This room is closed.");
  }

  join() {
    const room = this.room;
    byId("join").disabled = true;
    this.connection.command(room.id, "join", {}, (answer) => {
      byId("join").disabled = false;
      if (room !== this.room) return;
      const isIn = answer.type === "ack" || /already/.test(`${answer.message} ${answer.detail ?? ""}`);
      say(byId("join-error"), isIn ? "" : answer.detail ?? answer.message);
      if (!isIn) return;
      if (!room.members.has(this.me)) room.members.set(this.me, this.me);
      this.drawHead();
      byId("text").focus();
    });
  }

  post(text, kind, replyTo) {
    const room = this.room.id;
    const pending = {
      type: "message", by: this.me, at: new Date(), text, kind, replyTo, room,
      version: 0, reactions: new Map(), changes: [], state: "sending",
    };
    this.pending.set(room, [...(this.pending.get(room) ?? []), pending]);
    this.sendPending(pending);
    if (this.room.isDetached) this.latest();
    this.timeline.isAtBottom = true;
    this.timeline.unseen = 0;
  }

  sendPending(pending, id = randomId()) {
    const data = { text: pending.text };
    if (pending.kind === "action") data.kind = "action";
    if (pending.replyTo !== null) data.reply_to = pending.replyTo;
    Object.assign(pending, { id, key: `pending-${id}`, state: "sending", problem: undefined });
    this.pendingChanged(pending.room);
    this.connection.command(pending.room, "post_message", data, (answer) => this.postAnswered(pending, answer), id);
  }

  postAnswered(pending, answer) {
    if (answer.type === "ack") {
      // The event itself replaces the pending line; where it has come or will not, the ack does.
      const isHeld = pending.room === this.room?.id && !this.room.isDetached;
      if (!isHeld || (this.connection.lastOf(pending.room) ?? -1) >= answer.revision) this.settle(pending.room, pending.id);
      return;
    }
    pending.state = "rejected";
    pending.problem = answer.detail ?? answer.message;
    pending.code = answer.code;
    if (answer.code === "not_a_member" && pending.room === this.room?.id) {
      this.room.members.delete(this.me);
      this.drawHead();
    }
    this.pendingChanged(pending.room);
  }

  settle(room, id) {
    const pending = this.pending.get(room);
    if (!pending?.some((one) => one.id === id)) return;
    this.pending.set(room, pending.filter((one) => one.id !== id));
    this.pendingChanged(room);
  }

  pendingChanged(room) {
    if (room !== this.room?.id) return;
    this.timeline.pending = this.pending.get(room) ?? [];
    this.timeline.due();
  }

  ask(name, data) {
    this.connection.command(this.room.id, name, data, (answer) => {
      if (answer.type === "reject") this.composer.problem(answer.detail ?? answer.message);
    });
  }

  latest() {
    this.connection.subscribe(this.room.id);
  }

  async older() {
    const room = this.room;
    if (this.isLoadingHistory || !room?.hasMore || room.oldest === null) return;
    this.isLoadingHistory = true;
    const heldBefore = room.items.length;
    try {
      // A page of nothing but edits and reactions shows nothing: ask on, until something does.
      while (room === this.room && room.hasMore && room.items.length === heldBefore) {
        const { oldest } = room;
        const page = await this.connection.history(room.id, oldest, HISTORY_LIMIT);
        // A reset in between makes the page one of another window.
        if (room !== this.room || room.oldest !== oldest) break;
        room.prepend(page.events, page.more);
        if (room.isDetached) break;
      }
    } catch {
      // Scrolling up asks again.
    } finally {
      this.isLoadingHistory = false;
    }
    this.timeline.due();
  }

  timelineCalls() {
    return {
      older: () => this.older(),
      latest: () => this.latest(),
      reply: (item) => this.composer.reply(item, describe(this.room, item)),
      edit: (item) => this.composer.edit(item),
      remove: (item) => window.confirm("Remove this message for everyone?")
        && this.ask("redact_message", { target: item.revision }),
      react: (item, emoji) => this.ask(
        item.reactions.get(emoji)?.has(this.me) ? "remove_reaction" : "add_reaction",
        { target: item.revision, emoji }),
      // With an unknown outcome only the same id is safe; a refused command is free to be a new one.
      retry: (pending) => this.sendPending(pending, pending.code === "unknown_outcome" ? pending.id : undefined),
      discard: (pending) => this.settle(pending.room, pending.id),
    };
  }
}

// The hash names the room; at first the query may, then what this tab had last.
function roomInAddress() {
  if (location.hash.length > 1) {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch {
      return location.hash.slice(1);
    }
  }
  return new URLSearchParams(location.search).get("room") ?? recall("sessionStorage", "room");
}

function start(name) {
  remember("sessionStorage", "user", name);
  remember("localStorage", "user", name);
  byId("welcome").hidden = true;
  byId("app").hidden = false;
  new Chat(name);
}

function welcome(name, problem) {
  byId("welcome").hidden = false;
  const input = byId("welcome-name");
  input.value = name;
  say(byId("welcome-error"), problem);
  input.focus();
  input.select();
  byId("welcome-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = input.value.trim();
    const refused = idProblem("The name", typed);
    if (!refused) return start(typed);
    say(byId("welcome-error"), refused);
    return input.focus();
  });
}

const given = new URLSearchParams(location.search).get("user") ?? recall("sessionStorage", "user");
if (given && !idProblem("The name", given)) start(given);
else if (given) welcome(given, idProblem("The name", given));
else welcome(recall("localStorage", "user") ?? "", null);
