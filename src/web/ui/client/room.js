// A room as one follower sees it: its events in order and once, commands, who is there.

import { EPHEMERAL_BYTES_MAX, ephemeralObjection, historyObjection } from "./content.js";
import { Cursor } from "./cursor.js";
import { Emitter } from "./emitter.js";
import { ClientError } from "./errors.js";
import { nameObjection, randomId, revisionObjection } from "./ids.js";
import { Presence } from "./presence.js";

const SEEN_EVERY_MS = 1_000;
/** The others' messages of which it is known which are unread when a marker moves. */
const RECENT_LEN_MAX = 200;
/** Events past a marker among which is counted what is unread; the server counts in as many. */
const COUNTED_EVENTS_MAX = 200;
/** After a marker moved to what is not held, what lies between is asked for at most this often. */
const COUNT_EVERY_MS = 200;
/** How often a state is asked for that does not come, before the events since are taken in its place. */
const STATE_TRIES_MAX = 2;
/** A hello that found no place for this room is followed by so many wishes, over a good minute. */
const PLACE_TRIES_MAX = 8;
const PLACE_BASE_MS = 1_000;
const PLACE_CAP_MS = 30_000;
/** Why a room cannot be had now, and may be later: an earlier line of this person counts until it is gone. */
const PASSING = ["rate_limited", "unavailable"];

/**
 * Emits
 * - `reset`: `{ epoch }`, drop what is held of this room; what follows starts anew (also at the first visit).
 *   Where the epoch is another than before, the room's whole history is another; `denied` follows if it has none
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
  #hasEntered = false; // since that was sent: a denial may be of before
  #link;
  #seenDue = null;
  #seenUnsure = null; // said while the token may have run out: its refusal names no marker
  #seenTimer = null;
  #presence;
  #recent = []; // revisions of the others' last messages
  #recentFrom = null; // the revision from which on those are all
  #epoch = null; // of the revisions that are known
  #countedTo = -1; // the revision up to which `unread` counts already
  #isMiscounted = false; // a marker moved to where it is not known what is unread past it
  #countTimer = null;
  #awaitsState = false; // the server said that a state comes
  #stateTries = 0;
  #placeTries = 0;
  #placeTimer = null;

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
    /** Messages of others past what was seen; at least so many where that lies further back than the last 200 events. */
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
    const problem = historyObjection({ before, limit });
    if (problem !== null) return Promise.reject(new ClientError("malformed", problem));
    return this.#link.request({ type: "history", room: this.id, ...(before !== undefined && { before }), limit });
  }

  /** Broadcasts something that is not recorded; best effort. Throws what the server would not take. */
  ephemeral(name, data = {}) {
    refuse(nameObjection(name));
    // Here it throws at whoever gives what is no JSON, not on the way.
    const said = JSON.parse(JSON.stringify(data));
    const problem = ephemeralObjection(said, this.#link.ephemeralBytesMax ?? EPHEMERAL_BYTES_MAX);
    if (problem !== null) throw new ClientError(problem.code, problem.message);
    this.#link.send({ type: "ephemeral", room: this.id, name, data: said });
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
    if (revision === null) return;
    refuse(revisionObjection(revision));
    if (revision <= (this.seenRevision ?? -1)) return;
    this.seenRevision = revision;
    this.#seenDue = revision;
    this.#recount();
    this.#seenTimer ??= setTimeout(() => this.#sendSeen(), SEEN_EVERY_MS);
  }

  /** Starts over at the room's latest page. */
  restart() {
    this.#cursor.clear();
    this.subscribe();
  }

  /** Follows no more. */
  unfollow() {
    if (this.state === "left") return; // the room may have been asked for anew since
    clearTimeout(this.#placeTimer);
    clearTimeout(this.#countTimer);
    this.tellSeen();
    this.state = "left";
    this.#presence.clear();
    this.#link.forget(this.id);
  }

  // What follows is called by the client.

  /** Says now how far this person has read, while there is a line. */
  tellSeen() {
    clearTimeout(this.#seenTimer);
    this.#sendSeen();
  }

  /** Another token was taken: what may have been refused before that is said again. */
  renewed() {
    this.#seenDue ??= this.#seenUnsure;
    this.tellSeen();
  }

  subscribe() {
    clearTimeout(this.#placeTimer);
    this.#awaited = randomId();
    this.#hasEntered = false;
    const { catch_up: catchUp, ...place } = this.#cursor.fields();
    const wantsState = catchUp !== undefined && this.#stateTries < STATE_TRIES_MAX;
    this.#link.send({ type: "subscribe", id: this.#awaited, room: this.id, ...place, ...(wantsState && { catch_up: catchUp }) });
  }

  /** This person has come in, as far as is known: a room that was not to be read is asked for again. */
  entered() {
    if (this.state === "denied" || this.state === "closed") {
      this.state = "joining";
      this.#placeTries = 0;
      this.subscribe();
    } else if (this.#awaited !== null) this.#hasEntered = true;
  }

  deny(why) {
    this.#end("denied", why);
  }

  lost() {
    clearTimeout(this.#placeTimer);
    this.#awaited = null;
    this.#hasEntered = false;
    this.#seenUnsure = null; // the server's own marker tells, once the room is attached again
    this.#awaitsState = false;
    this.#stateTries = 0;
    if (this.state === "live") this.state = "catching_up";
    this.#presence.clear();
  }

  attached({ id, epoch, head, how, code, unread, seen }) {
    // Only the answer to the newest wish counts: events before it belong to an older one.
    if (id !== undefined && id !== this.#awaited) {
      if (how !== "denied") this.entered(); // another tab of this person was let in
      return;
    }
    this.#awaited = null;
    const isAnother = how === "reset" || (this.#epoch ?? epoch) !== epoch;
    if (how === "denied") {
      if (code === "ahead_of_log" && this.#cursor.last !== null) this.restart();
      else if (!this.#asksLater(code)) this.#denied(code, isAnother ? epoch : null);
      return;
    }
    this.#placeTries = 0;
    if (isAnother) this.#forgetRead();
    if (how === "reset" || this.#cursor.last === null || (this.#cursor.epoch ?? epoch) !== epoch) {
      this.#cursor.clear();
      this.#countedTo = head ?? -1; // what came before the first visit is not missed
      this.#recentFrom = null;
      this.emit("reset", { epoch });
    }
    this.#epoch = epoch;
    this.#cursor.epoch = epoch;
    // Where tabs share a line it may be another that wants a state.
    this.#awaitsState = how === "state" && this.#cursor.catchUp === "state";
    this.head = head;
    this.state = "catching_up";
    this.#count(seen ?? null, unread ?? null, head ?? -1);
    if (this.#seenDue !== null) this.#sendSeen();
  }

  // What is held of a history that is gone goes also where nothing takes its place.
  #denied(code, epoch) {
    if (epoch !== null) {
      this.#forgetRead();
      this.#cursor.clear();
      this.#epoch = epoch;
      this.head = null;
      this.emit("reset", { epoch });
    }
    this.#end("denied", { code: code ?? "not_found", message: DENIED[code ?? "not_found"] ?? `the server does not let this room be read (${code})` });
  }

  #forgetRead() {
    this.seenRevision = null;
    this.#seenDue = this.#seenUnsure = null;
    this.#recent = [];
    this.#recentFrom = null;
    this.#isMiscounted = false;
    this.#setUnread(0);
  }

  // The server's count is of what was recorded: a marker that it has not got yet is sent again, and
  // the count is the own one then, as it is without any marker.
  #count(seen, unread, head) {
    if (seen !== null && seen >= (this.seenRevision ?? -1)) {
      this.seenRevision = seen;
      if (unread === null) return;
      this.#countedTo = head;
      this.#isMiscounted = false;
      this.#setUnread(unread);
    } else if (this.seenRevision !== null) {
      this.#seenDue ??= this.seenRevision;
      this.#isMiscounted = this.seenRevision + 1 < this.#heldFrom;
      this.#setUnread(this.#recent.filter((one) => one > this.seenRevision).length);
    }
  }

  // Whether a room that was not to be had is asked for again.
  #asksLater(code) {
    if (!PASSING.includes(code) || this.#placeTries >= PLACE_TRIES_MAX) return false;
    const bound = Math.min(PLACE_CAP_MS, PLACE_BASE_MS * 2 ** this.#placeTries);
    this.#placeTries += 1;
    this.#placeTimer = setTimeout(() => this.state !== "left" && this.subscribe(), bound * (0.5 + Math.random() / 2));
    return true;
  }

  /** Takes a message about this room. */
  take(message) {
    switch (message.type) {
      case "subscribed": this.attached(message); break;
      case "event": this.#event(message); break;
      case "room_state": this.#roomState(message); break;
      case "live": this.#live(message); break;
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
    else if (message.retry) this.#placeTimer = setTimeout(() => this.state !== "left" && this.subscribe(), message.after_ms ?? 2_000 * Math.random());
    else if (this.#placeTries === 0 || !this.#asksLater(message.code)) this.#end("denied", { code: message.code, message: message.detail ?? message.message });
    return true;
  }

  #event(event) {
    if (this.#awaited !== null || this.state === "left") return;
    // The line turned to events before the state came: another tab asked for them.
    if (this.#awaitsState && this.#cursor.last === null) return;
    const place = this.#cursor.take(event.revision);
    if (place === "gap") this.subscribe();
    if (place !== "next") return;
    this.#recentFrom ??= event.revision;
    this.head = Math.max(this.head ?? 0, event.revision);
    this.#arrived(event);
    this.emit("event", event);
  }

  #arrived({ by, name, revision }) {
    this.#presence.quiet(by);
    if (by === this.#link.user || name !== "MessagePosted") return;
    if (revision > (this.#recent.at(-1) ?? -1)) this.#recent.push(revision);
    if (this.#recent.length > RECENT_LEN_MAX) this.#recentFrom = this.#recent.shift() + 1;
    if (revision > Math.max(this.#countedTo, this.seenRevision ?? -1)) this.#setUnread(this.unread + 1);
  }

  #roomState({ revision, state, events }) {
    if (this.#awaited !== null || this.state === "left") return;
    const held = this.#cursor.last;
    if (!this.#awaitsState) {
      // It was for another tab, and the line is at that place now: go on from the own one.
      if (revision > (held ?? -1)) this.subscribe();
      return;
    }
    this.#awaitsState = false;
    this.#stateTries = 0;
    this.#cursor.last = revision;
    this.head = Math.max(this.head ?? 0, revision);
    if (events.length > 0) this.#recentFrom = Math.min(this.#recentFrom ?? Infinity, events[0].revision);
    for (const event of events) if (event.revision > (held ?? -1)) this.#arrived(event);
    this.emit("state", { state, events, revision });
  }

  #live({ revision }) {
    if (this.#awaited !== null || this.state === "left") return;
    const awaitsState = this.#awaitsState && this.#cursor.last === null;
    // Where tabs share a line what went before may have been for another.
    if (awaitsState || (revision ?? -1) > (this.#cursor.last ?? -1)) {
      if (awaitsState) this.#stateTries += 1;
      this.subscribe();
      return;
    }
    this.#awaitsState = false;
    this.#stateTries = 0;
    this.state = "live";
    this.emit("live");
    if (this.#isMiscounted) this.#recount();
  }

  #ephemeral({ name, data, by }) {
    if (name === "typing" && by !== this.#link.user) this.#presence.wrote(by, data?.active !== false);
    else this.emit("ephemeral", { name, data, by });
  }

  #end(state, why) {
    if (state === "denied" && this.#hasEntered) {
      this.subscribe();
      return;
    }
    this.state = state;
    this.#presence.clear();
    this.emit(state, why);
  }

  /** A read marker moved on another device: what was unread up to there is read. */
  seenElsewhere(revision) {
    if (revision <= (this.seenRevision ?? -1)) return;
    this.seenRevision = revision;
    this.#recount();
  }

  // What is unread past the marker. Where some of that has not come here it stays what it was until the
  // room is live, and what lies between the marker and what is held has been asked for.
  #recount() {
    const last = this.#cursor.last ?? -1;
    const from = this.#heldFrom;
    const hasAll = last >= this.#countedTo && (this.seenRevision + 1 >= from || last + 1 - from >= COUNTED_EVENTS_MAX);
    const isRead = this.seenRevision >= Math.max(this.head ?? 0, last);
    this.#isMiscounted = !isRead && !hasAll;
    if (isRead) this.#setUnread(0);
    else if (hasAll) this.#setUnread(this.#recent.filter((one) => one > this.seenRevision).length);
    else if (this.state === "live") this.#countTimer ??= setTimeout(() => this.#readBetween(), COUNT_EVERY_MS);
  }

  // The revision from which on it is known which messages are the others'.
  get #heldFrom() {
    return this.#recentFrom ?? (this.#cursor.last ?? -1) + 1;
  }

  async #readBetween() {
    const { seenRevision } = this;
    const [epoch, before] = [this.#epoch, this.#heldFrom];
    const limit = Math.min(COUNTED_EVENTS_MAX, before - seenRevision - 1);
    if (!this.#isMiscounted || limit < 1) {
      this.#countTimer = null;
      return;
    }
    try {
      const { events, more } = await this.history({ before, limit });
      // Meanwhile what is held may begin elsewhere, or be of another history.
      if (epoch === this.#epoch && before === this.#heldFrom) {
        const messages = events.filter(({ by, name }) => name === "MessagePosted" && by !== this.#link.user);
        this.#recent = [...messages.map(({ revision }) => revision), ...this.#recent.filter((one) => one >= before)];
        this.#recentFrom = more && events.length > 0 ? events[0].revision : seenRevision + 1;
      }
    } catch {
      return; // the next marker that moves asks again
    } finally {
      this.#countTimer = null;
    }
    if (this.#isMiscounted && this.state !== "left") this.#recount();
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
    this.#seenUnsure = this.#link.isRenewing ? this.#seenDue : null;
    this.#seenDue = null;
  }
}

// Throws at the caller: the answer to what has no id would reach nobody, and many such end the line.
function refuse(objection) {
  if (objection !== null) throw new ClientError("malformed", objection);
}

const CLOSED = "the room is no longer yours to read";
const DENIED = {
  not_found: "there is no room of this name",
  forbidden: "you may not read this room",
  not_a_member: "only members may read this room: ask one for an invitation",
  rate_limited: "you follow as many rooms as the server allows: leave one first",
  unavailable: "the room cannot be read now",
};
