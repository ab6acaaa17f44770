// A room as one follower sees it: its events in order and once, commands, who is there.

import { Cursor } from "./cursor.js";
import { Emitter } from "./emitter.js";
import { randomId } from "./ids.js";
import { Presence } from "./presence.js";

const SEEN_EVERY_MS = 1_000;
/** The others' messages of which it is known which are unread when a marker moves. */
const RECENT_LEN_MAX = 200;

/**
 * Emits
 * - `reset`: drop what is held of this room; what follows starts anew (also at the first visit)
 * - `event`: a recorded event, in order, exactly once
 * - `state`: `{ state, events, revision }`, the room's public state instead of its history
 * - `live`: the past is done, what follows happens now
 * - `denied`, `closed`: `{ code, message }`, the room is not to be read (any more)
 * - `presence`, `typing`, `unread`: the property of that name changed
 * - `ephemeral`: `{ name, data, by }`, broadcast and never recorded
 */
export class Room extends Emitter {
  #cursor;
  #awaited = null; // the id of a subscribe whose answer is due
  #link;
  #seenDue = null;
  #seenTimer = null;
  #presence;
  #recent = []; // revisions of the others' last messages

  /** Made by `client.room(id)`. */
  constructor(id, link, { epoch, after, catchUp } = {}) {
    super();
    this.id = id;
    this.#link = link;
    this.#cursor = new Cursor({ epoch, after, catch_up: catchUp });
    /** @type {"joining"|"catching_up"|"live"|"denied"|"closed"|"left"} */
    this.state = "joining";
    /** The room's last revision that is known of. */
    this.head = null;
    /** Messages of others past what was seen. */
    this.unread = 0;
    /** The last revision that this person has seen, on any device; null when not known. */
    this.seenRevision = null;
    this.#presence = new Presence((name) => this.emit(name));
  }

  /** Where this follower stands: hand `{ epoch, after }` to `client.room` to go on from here later. */
  get cursor() {
    return { epoch: this.#cursor.epoch, after: this.#cursor.last };
  }

  /** Who is here now: `count` people, of whom `members` lists all, or some if not `isComplete`. */
  get presence() {
    return this.#presence.here;
  }

  /** Who is writing now, besides this person. */
  get typing() {
    return this.#presence.typing;
  }

  /** Asks for something to be done here; resolves with the ack, however often the line breaks. */
  command(name, data = {}, options = {}) {
    return this.#link.command(this.id, name, data, options);
  }

  /** Says something. @param {{kind?: "text"|"action", replyTo?: number|null, id?: string}} [options] */
  post(text, { kind, replyTo = null, ...options } = {}) {
    const data = { text, ...(kind === "action" && { kind }), ...(replyTo !== null && { reply_to: replyTo }) };
    this.#presence.silent();
    return this.command("post_message", data, options);
  }

  edit(target, text) {
    return this.command("edit_message", { target, text });
  }

  redact(target, reason) {
    return this.command("redact_message", { target, ...(reason && { reason }) });
  }

  react(target, emoji) {
    return this.command("add_reaction", { target, emoji });
  }

  unreact(target, emoji) {
    return this.command("remove_reaction", { target, emoji });
  }

  join(displayName) {
    return this.command("join", displayName ? { display_name: displayName } : {});
  }

  leave(reason) {
    return this.command("leave", reason ? { reason } : {});
  }

  /** A page of the past, oldest first: `{ events, more }`. @param {{before?: number, limit?: number}} [options] */
  history({ before, limit = 50 } = {}) {
    return this.#link.request({ type: "history", room: this.id, ...(before !== undefined && { before }), limit });
  }

  /** Broadcasts something that is not recorded; best effort. */
  ephemeral(name, data = {}) {
    this.#link.send({ type: "ephemeral", room: this.id, name, data });
  }

  /** Call it at each keystroke: it tells the others, at most every few seconds. */
  write() {
    if (this.#presence.mayTell()) this.ephemeral("typing", { active: true });
  }

  /** Call it when the draft is empty again. */
  stopWriting() {
    if (this.#presence.silent()) this.ephemeral("typing", { active: false });
  }

  /** This person has seen everything up to this revision; their other devices hear of it. */
  seen(revision = this.#cursor.last) {
    if (revision === null || revision <= (this.seenRevision ?? -1)) return;
    this.seenRevision = revision;
    this.#seenDue = revision;
    if (revision >= (this.#cursor.last ?? 0)) this.#setUnread(0);
    this.#seenTimer ??= setTimeout(() => this.#sendSeen(), SEEN_EVERY_MS);
  }

  /** Starts over at the room's latest page. */
  restart() {
    this.#cursor.clear();
    this.subscribe();
  }

  /** Follows no more. */
  unfollow() {
    clearTimeout(this.#seenTimer);
    this.#sendSeen();
    this.state = "left";
    this.#presence.clear();
    this.#link.forget(this.id);
  }

  // What follows is called by the client.

  subscribe() {
    this.#awaited = randomId();
    this.#link.send({ type: "subscribe", id: this.#awaited, room: this.id, ...this.#cursor.fields() });
  }

  deny(why) {
    this.#end("denied", why);
  }

  lost() {
    this.#awaited = null;
    if (this.state === "live") this.state = "catching_up";
    this.#presence.clear();
  }

  attached({ id, epoch, head, how, code, unread, seen }) {
    // Only the answer to the newest wish counts: events before it belong to an older one.
    if (id !== undefined && id !== this.#awaited) return;
    this.#awaited = null;
    if (how === "denied") {
      if (code === "ahead_of_log" && this.#cursor.last !== null) this.restart();
      else this.#end("denied", { code: code ?? "not_found", message: DENIED[code] ?? DENIED.not_found });
      return;
    }
    if (how === "reset" || this.#cursor.last === null || (this.#cursor.epoch ?? epoch) !== epoch) {
      this.#cursor.clear();
      this.seenRevision = null;
      this.#recent = [];
      this.emit("reset");
    }
    this.#cursor.epoch = epoch;
    this.head = head;
    this.state = "catching_up";
    if (seen !== undefined && seen !== null) this.seenRevision = Math.max(seen, this.seenRevision ?? 0);
    if (unread !== undefined && unread !== null) this.#setUnread(unread);
    if (this.#seenDue !== null) this.#sendSeen();
  }

  /** Takes a message about this room. */
  take(message) {
    switch (message.type) {
      case "subscribed": this.attached(message); break;
      case "event": this.#event(message); break;
      case "room_state": this.#roomState(message); break;
      case "live": this.#live(); break;
      case "closed": this.#end("closed", { code: message.code, message: CLOSED }); break;
      case "presence": this.#presence.take(message); break;
      case "ephemeral": this.#ephemeral(message); break;
      default:
    }
  }

  /** Takes the server's no to a subscribe; false when it is none of this room. */
  refused(message) {
    if (message.id !== this.#awaited || this.#awaited === null) return false;
    this.#awaited = null;
    if (message.code === "ahead_of_log" && this.#cursor.last !== null) this.restart();
    else if (message.retry) setTimeout(() => this.state !== "left" && this.subscribe(), message.after_ms ?? 2_000 * Math.random());
    else this.#end("denied", { code: message.code, message: message.detail ?? message.message });
    return true;
  }

  #event(event) {
    if (this.#awaited !== null || this.state === "left") return;
    const place = this.#cursor.take(event.revision);
    if (place === "gap") this.subscribe();
    if (place !== "next") return;
    this.head = Math.max(this.head ?? 0, event.revision);
    if (event.by === this.#link.user) this.#presence.quiet(event.by);
    else if (event.name === "MessagePosted") this.#arrived(event);
    this.emit("event", event);
  }

  #arrived(event) {
    this.#presence.quiet(event.by);
    this.#recent.push(event.revision);
    if (this.#recent.length > RECENT_LEN_MAX) this.#recent.shift();
    // What came before it was live the server has counted already.
    if (this.state === "live" && event.revision > (this.seenRevision ?? -1)) this.#setUnread(this.unread + 1);
  }

  #roomState({ revision, state, events }) {
    if (this.#awaited !== null) return;
    this.#cursor.last = revision;
    this.head = Math.max(this.head ?? 0, revision);
    this.emit("state", { state, events, revision });
  }

  #live() {
    if (this.#awaited !== null) return;
    this.state = "live";
    this.emit("live");
  }

  #ephemeral({ name, data, by }) {
    if (name === "typing" && by !== this.#link.user) this.#presence.wrote(by, data?.active !== false);
    else this.emit("ephemeral", { name, data, by });
  }

  #end(state, why) {
    this.state = state;
    this.#presence.clear();
    this.emit(state, why);
  }

  /** A read marker moved on another device: what was unread up to there is read. */
  seenElsewhere(revision) {
    if (revision <= (this.seenRevision ?? -1)) return;
    this.seenRevision = revision;
    if (revision >= (this.head ?? 0)) this.#setUnread(0);
    else this.#setUnread([...this.#recent].filter((one) => one > revision).length);
  }

  #setUnread(count) {
    if (count === this.unread) return;
    this.unread = count;
    this.emit("unread", count);
  }

  #sendSeen() {
    this.#seenTimer = null;
    if (this.#seenDue === null || !this.#link.isLive) return;
    this.#link.send({ type: "seen", room: this.id, revision: this.#seenDue });
    this.#seenDue = null;
  }
}

const CLOSED = "the room is no longer yours to read";
const DENIED = {
  not_found: "there is no room of this name",
  forbidden: "you may not read this room",
  rate_limited: "you follow as many rooms as the server allows: leave one first",
};
