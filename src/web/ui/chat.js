// The page's composition: who am I, which room, and how the parts hear of each other.

import { connect } from "/client.js";
import { Composer } from "./composer.js";
import { Conversation, NOT_FOUND } from "./conversation.js";
import { OWN_STREAM, byId, button, make, paintAvatar, recall, remember, say } from "./dom.js";
import { describe } from "./message-list.js";
import { Invitations } from "./invitations.js";
import { Panel } from "./panel.js";
import { Refusals } from "./refusals.js";
import { Sidebar } from "./sidebar.js";
import { Standing } from "./standing.js";
import { StatusView } from "./status.js";
import { Timeline } from "./timeline.js";
import { forget, refused, unwanted, who } from "./welcome.js";

/** Rooms that stay followed, so that coming back to one is immediate. */
const HELD_MAX = 12;
const ANNOUNCE_MS = 1_000;
const FACES_MAX = 3;
const KEYS = "Shift+Alt+↑ goes to the messages: there ↑ and ↓ move, R replies, T opens the thread, + reacts, E edits, Delete removes";
/** The server wants a token, or another one. */
const TOKEN_CLOSE = 4501;
/** Among others: it takes names, and there was a token. */
const MALFORMED_CLOSE = 4500;

class Chat {
  constructor(me, token) {
    this.me = me;
    this.held = new Map(); // room -> Conversation, the longest unvisited first
    this.current = null;
    this.coming = null; // where a person goes, and what had the focus then: { room, from }
    this.news = [];
    byId("my-name").textContent = me;
    paintAvatar(byId("my-avatar"), me, me);
    this.client = connect(token ? { token, account: me } : { user: me });
    this.refusals = new Refusals(this.client);
    new StatusView(this.client);
    const standing = new Standing(this.client);
    this.sidebar = new Sidebar(this.client, {
      pick: (room) => this.go(room),
      listed: () => this.listed(),
      unread: (room) => this.held.get(room)?.room.unread ?? null,
      read: (room) => standing.readOf(room),
      refused: (room) => this.refusals.of(room).length,
      unauthorized: () => refused(),
    });
    this.refusals.on("changed", () => this.sidebar.draw());
    standing.on("read", () => this.sidebar.draw());
    const calls = this.messageCalls();
    this.timeline = new Timeline(
      { scroller: byId("scroller"), list: byId("timeline"), pill: byId("pill"), historyNote: byId("history-note") },
      { ...calls, atBottom: () => this.markSeen() });
    this.panel = new Panel({ ...calls, saveEdit: (revision, text) => this.current.edit(revision, text), leave: () => this.leave(), invite: (member) => this.invite(member) });
    this.composer = this.makeComposer();
    new Invitations(this.client, standing, (room) => this.go(room));
    this.wire();
    this.sidebar.refresh();
    this.enter(roomInAddress());
  }

  makeComposer() {
    return new Composer(byId("composer-place"), {
      post: (text, kind, replyTo) => {
        this.timeline.isAtBottom = true;
        this.timeline.unseen = 0;
        this.current.newFrom = null;
        return this.current.post(text, kind, replyTo);
      },
      edit: (revision, text) => this.current.edit(revision, text),
      nick: (name) => this.current.rename(name),
      editLast: () => {
        const last = this.current?.ownLast();
        if (last) this.composer.edit(last);
      },
      list: () => this.timeline.messages.focusLast(),
      writing: () => this.current.room.write(),
      silent: () => this.current.room.stopWriting(),
    }, "Message", KEYS);
  }

  wire() {
    byId("join").addEventListener("click", () => this.join());
    byId("members-open").addEventListener("click", () => this.panel.toggleMembers(this.current));
    byId("change-name").addEventListener("click", () => {
      this.client.close();
      forget();
      const address = new URL(location.href);
      address.searchParams.delete("user");
      history.replaceState(null, "", address);
      location.reload();
    });
    window.addEventListener("hashchange", () => this.enter(roomInAddress()));
    document.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("visibilitychange", () => document.hidden || this.timeline.due());
    window.addEventListener("focus", () => this.timeline.due()); // what is in sight is seen now
    byId("skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address names the room
      this.composer.focus();
    });
    window.addEventListener("beforeunload", (event) => this.losesWords() && event.preventDefault());
    this.client.on("ready", () => this.sidebar.refreshSoon());
    this.client.on("status", (status) => this.stands(status));
  }

  // Words that wait and that this browser could not keep, full or forbidden as its storage is.
  losesWords() {
    return this.client.pending.some(({ id, state, frame }) => state === "waiting" && frame.data?.text !== undefined && !this.client.isKept(id));
  }

  listed() {
    this.current?.listed(this.sidebar.entryOf(this.current.id) !== undefined);
    this.headDue();
  }

  stands({ state, code }) {
    if (state === "closed" && code === TOKEN_CLOSE) return refused();
    if (state === "closed" && code === MALFORMED_CLOSE) unwanted();
    return this.changed();
  }

  key(event) {
    const isModified = event.ctrlKey || event.metaKey;
    if (isModified && event.key.toLowerCase() === "k") {
      this.sidebar.drawer(true);
      byId("room-search").focus();
    } else if (event.altKey && !event.shiftKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      const room = this.sidebar.neighbour(event.key === "ArrowUp" ? -1 : 1);
      if (room) this.go(room);
    } else return;
    event.preventDefault();
  }

  go(room) {
    if (room === roomInAddress()) this.enter(room);
    else location.hash = encodeURIComponent(room);
    this.coming = { room, from: document.activeElement };
    this.composer.focus();
    this.placeFocus();
  }

  // Who went to a room writes next. Where that cannot be, or not yet, the messages have the focus, unless the
  // person has gone elsewhere since.
  placeFocus() {
    if (!this.coming || this.coming.room !== this.current?.id) return;
    const { from } = this.coming;
    const isWaiting = [from, document.body, byId("scroller"), this.composer.text].includes(document.activeElement);
    if (isWaiting && this.composer.isHidden) byId("scroller").focus({ preventScroll: true });
    else if (isWaiting) this.composer.focus();
    if (!isWaiting || !this.composer.isHidden) this.coming = null;
  }

  enter(id) {
    if (id === null) return this.drawHead();
    if (id === this.current?.id && !this.current.problem) return undefined;
    this.panel.close();
    this.current?.room.stopWriting();
    if (this.current) this.current.newFrom = null;
    this.current = this.hold(id);
    this.composer.show(`draft:${this.me}:${id}`, "Message", this.current);
    this.timeline.show(this.current);
    say(byId("join-error"), "");
    remember("sessionStorage", "room", id);
    this.sidebar.setCurrent(id);
    this.drawHead();
    return undefined;
  }

  hold(id) {
    let conversation = this.held.get(id);
    this.held.delete(id);
    if (conversation?.problem) {
      conversation.close();
      conversation = undefined;
    }
    conversation ??= this.follow(id);
    if (conversation.window.isLive && conversation.room.unread > 0 && conversation.room.seenRevision !== null) {
      conversation.newFrom = conversation.room.seenRevision + 1;
    }
    this.held.set(id, conversation);
    if (this.held.size > HELD_MAX) {
      const [oldest, released] = this.held.entries().next().value;
      this.held.delete(oldest);
      released.close();
    }
    return conversation;
  }

  follow(id) {
    const conversation = new Conversation(this.client, id, this.refusals);
    const isShown = () => conversation === this.current;
    conversation.isShown = isShown;
    conversation.holdsStill = () => isShown() && !this.timeline.isAtBottom;
    conversation.on("changed", () => isShown() && this.changed());
    conversation.on("arrived", (item) => this.arrived(conversation, item));
    conversation.on("restarted", () => isShown() && this.composer.confirm());
    conversation.on("head", () => (isShown() ? this.headDue() : this.sidebar.refreshSoon()));
    return conversation;
  }

  changed() {
    this.timeline.due();
    if (this.panel.isOpen) this.panelDue();
  }

  arrived(conversation, item) {
    this.sidebar.refreshSoon();
    if (conversation !== this.current) return;
    this.timeline.arrived();
    if (item.by !== this.me) this.announce(describe(conversation, item));
  }

  markSeen() {
    if (document.hidden || !document.hasFocus()) return;
    this.current.room.seen();
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

  panelDue() {
    this.panelTimer ??= setTimeout(() => {
      this.panelTimer = null;
      this.panel.draw();
    }, 50);
  }

  headDue() {
    this.headTimer ??= setTimeout(() => {
      this.headTimer = null;
      this.drawHead();
    }, 50);
  }

  drawHead() {
    const conversation = this.current;
    byId("members-open").hidden = !conversation;
    const wrote = this.composer.text === document.activeElement;
    this.composer.isHidden = !conversation?.mayWrite;
    if (wrote && this.composer.isHidden) byId("scroller").focus({ preventScroll: true });
    this.placeFocus();
    if (!conversation) return this.note("Pick a room from the list, or open one.");
    const title = conversation.title(this.sidebar.entryOf(conversation.id)?.title);
    byId("room-title").textContent = title;
    document.title = `${title} · dramatis`;
    this.composer.confirm();
    this.drawPeople(conversation);
    this.drawTyping(conversation);
    const { isMember, window, problem } = conversation;
    // Who was removed may come back where the room is open; it says so if not.
    const mayJoin = problem === null ? !isMember && window.membersKnown : conversation.mayComeBack;
    byId("join-row").hidden = window.isClosed || !mayJoin;
    byId("join-about").textContent = conversation.wasRemoved ? "You were removed from this room." : problem ? "You may not read this room now." : "You are reading along.";
    if (problem?.code === NOT_FOUND) {
      this.note(`There is no room “${conversation.id}” yet.`, button("primary", "Open it", "Open it", () => this.sidebar.ask(conversation.id)));
    } else if (conversation.mayComeBack) this.note("");
    else if (problem) this.note(`You cannot read this room: ${problem.message}.`);
    else if (window.isClosed) this.note("This room is closed. It can be read, and nothing can be added.");
    else this.note("");
    this.panel.draw();
    return undefined;
  }

  note(text, ...more) {
    byId("room-note").hidden = text === "";
    byId("room-note").replaceChildren(make("p", "", text), ...more);
  }

  drawPeople({ window, room }) {
    const count = window.members.size;
    const here = room.presence.members.filter((member) => window.members.has(member));
    const members = count === 1 ? "1 member" : `${count} members`;
    byId("room-about").textContent = room.presence.count > 0 ? `${members} · ${room.presence.count} here` : members;
    const faces = (here.length > 0 ? here : [...window.members.keys()]).slice(0, FACES_MAX).map((member) => {
      const face = make("span", "avatar small");
      face.setAttribute("aria-hidden", "true");
      paintAvatar(face, member, window.nameOf(member));
      return face;
    });
    const open = byId("members-open");
    open.replaceChildren(...faces, make("span", "people-count", String(count)));
    open.setAttribute("aria-label", `${members}: show who is here`);
    open.title = members;
  }

  drawTyping(conversation) {
    const names = conversation.room.typing.map((member) => conversation.nameOf(member));
    const text = names.length === 0 ? "" : names.length === 1 ? `${names[0]} is writing`
      : names.length === 2 ? `${names[0]} and ${names[1]} are writing` : "Several people are writing";
    if (byId("typing").dataset.text === text) return;
    byId("typing").dataset.text = text;
    byId("typing").replaceChildren(...(text ? [make("span", "dots", make("i"), make("i"), make("i")), text] : []));
  }

  async join() {
    const conversation = this.current;
    byId("join").disabled = true;
    try {
      await conversation.join();
      say(byId("join-error"), "");
      if (conversation === this.current && conversation.problem) this.enter(conversation.id);
    } catch (error) {
      say(byId("join-error"), error.message);
    }
    byId("join").disabled = false;
    if (conversation.id === this.current.id && conversation.isMember) {
      this.drawHead();
      this.composer.focus();
    }
  }

  leave() {
    if (!window.confirm(`Leave this room? ${afterLeaving(this.current.window)}`)) return;
    this.panel.close();
    this.ask(() => this.current.room.leave());
  }

  async invite(member) {
    try {
      await this.current.room.command("invite_member", { member });
      return `Invited ${member}.`;
    } catch (error) {
      return error.message;
    }
  }

  // What was not sent goes back to where it was written, or can be written anew.
  putBack(item, composer) {
    if (!this.current.mayWrite) return; // the words stay where they can be seen
    const target = this.current.window.byRevision.get(item.target);
    if (target && !target.isRemoved && target.by === this.me) composer.edit(target, item.text);
    else composer.take(item.text, item.kind);
    const answered = item.name === "post_message" && this.current.window.byRevision.get(item.replyTo);
    if (answered && composer === this.composer) composer.reply(answered);
    this.current.discard(item);
  }

  async ask(act) {
    try {
      await act();
    } catch (error) {
      this.composer.problem(error.message);
    }
  }

  messageCalls() {
    return {
      reply: (item) => this.composer.reply(item),
      thread: (item) => this.panel.openThread(this.current, item),
      edit: (item) => this.composer.edit(item),
      remove: (item) => window.confirm("Remove this message for everyone?") && this.ask(() => this.current.room.redact(item.revision)),
      react: (item, emoji) => this.ask(() => (item.reactions.get(emoji)?.has(this.me)
        ? this.current.room.unreact(item.revision, emoji) : this.current.room.react(item.revision, emoji))),
      retry: (item) => this.current.retry(item),
      putBack: (item, composer = this.composer) => this.putBack(item, composer),
      discard: (item) => this.current.discard(item),
    };
  }
}

// What leaving means. A room that was long before what is held may be either.
function afterLeaving({ isInvited }) {
  if (isInvited) return "It is for the invited alone: you can read it and come back only once someone invites you again.";
  if (isInvited === false) return "You can still read it, and join again.";
  return "If anyone may come in, you can still read it, and join again. If it is for the invited alone, only a new invitation brings you back.";
}

// The hash names the room; at first the query may, then what this tab had last.
function roomInAddress() {
  const room = namedInAddress();
  return room === OWN_STREAM ? null : room;
}

function namedInAddress() {
  if (location.hash.length > 1) {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch {
      return location.hash.slice(1);
    }
  }
  return new URLSearchParams(location.search).get("room") ?? recall("sessionStorage", "room");
}

who((name, token) => new Chat(name, token));
