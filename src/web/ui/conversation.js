// One room that this page holds: its window of messages, who is in it, and what is on its way.

import { bareId, personal } from "./dom.js";
import { Emitter } from "/client/emitter.js";
import { randomId } from "/client/ids.js";
import { ITEMS_MAX, Window } from "./window.js";

const HISTORY_LIMIT = 50;
/** After so long the list of members is asked for again where the server cannot give it yet; then less and less often. */
const MEMBERS_AGAIN_MS = 2_000;
const MEMBERS_AGAIN_MAX_MS = 60_000;
const TOO_FAST = 429;
const HTTP_FORBIDDEN = 403;
/** Why a room is not to be read that nobody has opened, or not in this history. */
export const NOT_FOUND = "not_found";
/** Why a room ended for who was removed from it, and what they are told who ask for it later. */
export const REMOVED = "removed";
const FORBIDDEN = "forbidden";
/** Stands between what is held and what waits, where the newest is not held. */
const GAP = "The messages in between are shown once there is a connection";
/** Refusals that the same words would meet again. */
const FINAL = ["too_big", "rule", "malformed", FORBIDDEN, NOT_FOUND];

/**
 * Emits `changed` (draw again), `arrived` (a new message), `event` (each one recorded), `head` (title,
 * members, who is here), and `restarted` (whether the room has another history now).
 */
export class Conversation extends Emitter {
  constructor(client, id, refusals) {
    super();
    this.client = client;
    this.refusals = refusals;
    this.me = client.user;
    this.id = id;
    this.window = new Window(id);
    this.epoch = null; // of the history that is held
    this.position = undefined; // of the last event, among all of the server
    this.acked = new Map(); // command id -> { entry, revision }, recorded and not seen here yet
    this.seenFirst = new Set(); // command ids, recorded and seen here before the server said so
    this.isLoading = false;
    this.isListed = undefined; // whether the list has it, as far as it was asked for
    this.askedTitle = undefined; // what the room's own document says
    this.wayBack = undefined; // of who may not read it: "open" or "closed", as that says, or "untold"
    this.problem = null; // why the room is not to be read
    this.newFrom = null; // where this person had stopped reading
    this.holdsStill = () => false; // a reader far back keeps their place
    this.isShown = () => true;
    this.room = client.room(id);
    this.wire();
    this.loadMembers();
  }

  wire() {
    const { room, client } = this;
    room.on("reset", (from) => this.reset(from));
    room.on("event", (event) => this.event(event));
    room.on("live", () => this.live());
    for (const name of ["denied", "closed"]) room.on(name, (why) => this.ended(why));
    for (const name of ["presence", "typing", "unread"]) room.on(name, () => this.emit("head"));
    this.offs = [
      client.on("pending", () => this.emit("changed")),
      client.on("settled", (outcome) => this.settled(outcome)),
      this.refusals.on("changed", (room) => room === this.id && this.emit("changed")),
    ];
  }

  /** Lets the room go. */
  close() {
    for (const off of this.offs) off();
    clearTimeout(this.membersTimer);
    this.room.unfollow();
  }

  /**
   * The list of rooms came, and has it or not: one that was not there, or that this person was removed from, is
   * asked for again. Someone may have opened it, or they have come back elsewhere.
   */
  listed(isThere) {
    if (isThere && [NOT_FOUND, REMOVED, FORBIDDEN].includes(this.problem?.code)) this.room.restart();
    this.isListed = isThere;
    if (!isThere && this.window.isLive) this.loadTitle();
  }

  get isMember() {
    return this.window.members.has(this.me);
  }

  /** Whether anything can be said or done here now, as far as is known. */
  get mayWrite() {
    return this.isMember && !this.window.isClosed && this.problem === null;
  }

  /** Whether this person was removed, as far as is known. */
  get wasRemoved() {
    return this.problem?.code === REMOVED || (this.problem?.code === FORBIDDEN && this.wayBack !== "untold");
  }

  /** Whether who may not read this may try to join it: where only the invited may, the room says so. */
  get mayComeBack() {
    return this.problem?.code === REMOVED || (this.problem?.code === FORBIDDEN && ["open", "untold"].includes(this.wayBack));
  }

  reset({ epoch }) {
    const hadSome = this.window.oldest !== null;
    const isAnother = this.epoch !== null && this.epoch !== epoch;
    this.epoch = epoch;
    const wasAway = this.problem !== null;
    this.problem = null;
    this.window.clear();
    if (isAnother) {
      this.window.forgetRoom();
      this.acked.clear();
      this.seenFirst.clear();
      this.newFrom = null;
      this.position = undefined;
      this.askedTitle = undefined;
    }
    this.emit("restarted", isAnother);
    this.emit("changed");
    if (hadSome || isAnother || wasAway) this.loadMembers();
  }

  live() {
    this.window.isLive = true;
    this.problem = null; // another tab of this person may have come back
    this.wayBack = undefined;
    for (const [id, { revision }] of this.acked) if (revision <= (this.room.cursor.after ?? -1)) this.acked.delete(id);
    if (this.isListed === false) this.loadTitle();
    if (this.newFrom === null && this.room.unread > 0 && this.room.seenRevision !== null) this.newFrom = this.room.seenRevision + 1;
    this.emit("changed");
    this.emit("head");
  }

  ended({ code, message }) {
    if (code === FORBIDDEN && this.problem?.code === REMOVED) return;
    this.problem = { code, message };
    if (code === FORBIDDEN) this.findWayBack();
    // Of a room that is not there nothing is left to show, nor who was in it.
    if (code === NOT_FOUND) {
      clearTimeout(this.membersTimer);
      this.window.clear();
      this.window.forgetRoom();
      this.window.members.clear();
    }
    this.emit("head");
    this.emit("changed");
  }

  // Who was removed while they were away is told no more than that they may not read it.
  async findWayBack() {
    this.window.members.delete(this.me);
    if (this.wayBack !== undefined) return;
    try {
      const { closed_at: closedAt } = await this.client.api.room(this.id);
      this.wayBack = closedAt === undefined ? "open" : "closed";
    } catch ({ status }) {
      // With tokens nothing of a room is told to who may not read it: joining tells. Else it is asked for with the next denial.
      if (status === HTTP_FORBIDDEN) this.wayBack = "untold";
    }
    this.emit("head");
  }

  event(event) {
    const { window } = this;
    const { version } = window;
    if (event.command) this.acked.delete(event.command);
    if (event.by === this.me && this.client.pending.some(({ id }) => id === event.command)) this.seenFirst.add(event.command);
    const item = window.append(event, !this.holdsStill() || window.items.length < ITEMS_MAX);
    if (!this.isShown()) window.trim(); // else it is drawn, and trimmed then
    this.position = event.position;
    this.emit("event", event);
    if (item?.type === "message" && window.isLive) this.emit("arrived", item);
    if (window.version !== version) this.emit("head");
    this.emit("changed");
  }

  // Messages that are not in the window yet, as items of it.
  get onTheirWay() {
    const { window: { isDetached, items }, outgoing } = this;
    if (!isDetached || outgoing.length === 0) return outgoing;
    // Where the newest is not held, it is asked for once something is written; without a line that takes until there is one.
    if (this.client.status.state === "live") return [];
    return [{ type: "gap", key: "gap", by: "", at: items.at(-1)?.at ?? new Date(), version: 0, text: GAP }, ...outgoing];
  }

  // All that was asked for here and is not settled: messages on their way, and whatever needs a decision.
  get outgoing() {
    const isLive = this.client.status.state === "live";
    const waiting = this.client.pending
      .filter(({ id, frame, state }) => frame.room === this.id
        && ((frame.name === "post_message" && !this.seenFirst.has(id)) || state === "expired"))
      .map((entry) => this.item(entry, entry.state === "expired" ? "expired" : isLive ? "sending" : "waiting"));
    const acked = [...this.acked.values()].filter(({ entry }) => entry.frame.name === "post_message").map(({ entry }) => this.item(entry, "sending"));
    const refused = this.refusals.of(this.id).map(({ entry, refusal }) =>
      ({
        ...this.item(entry, "refused"),
        problem: refusal.detail ?? refusal.message,
        isFinal: FINAL.includes(refusal.code) || (entry.frame.data.target !== undefined && !this.isOf(entry.epoch)),
      }));
    return [...acked, ...waiting, ...refused];
  }

  /** Wordings of messages that are on their way, the last of each: revision -> `{ text, state }`. */
  get edits() {
    const state = this.client.status.state === "live" ? "sending" : "waiting";
    const isEdit = ({ frame, epoch }) => frame.room === this.id && frame.name === "edit_message" && this.isOf(epoch);
    const acked = [...this.acked.values()].map(({ entry }) => [entry, "sending"]);
    const waiting = this.client.pending.filter((entry) => entry.state !== "expired" && !this.seenFirst.has(entry.id)).map((entry) => [entry, state]);
    return new Map([...acked, ...waiting].filter(([entry]) => isEdit(entry))
      .map(([{ frame: { data } }, of]) => [data.target, { text: data.text, state: of }]));
  }

  /** A message's words as this person put them last, whether that is saved yet or not. */
  wordsOf(item) {
    return this.edits.get(item.revision)?.text ?? item.text;
  }

  item({ id, frame: { name, data }, createdAt, epoch, expiredBy }, state) {
    // A revision of a history that is gone names nothing any more.
    const replyTo = this.isOf(epoch) ? data.reply_to ?? data.target ?? null : null;
    return {
      type: "message", key: `pending-${id}`, id, by: this.me, at: new Date(createdAt), text: wordsOf(name, data), kind: data.kind ?? "text",
      name, target: this.isOf(epoch) ? data.target : undefined, isWriting: data.text !== undefined, expiredBy, replyTo,
      threadRoot: this.window.byRevision.get(replyTo)?.threadRoot ?? replyTo,
      version: 0, reactions: new Map(), changes: new Map(), state,
    };
  }

  isOf(epoch) {
    return epoch === undefined || this.epoch === null || epoch === this.epoch;
  }

  settled({ entry, ack, refusal }) {
    if (entry.frame.room !== this.id) return;
    this.seenFirst.delete(entry.id);
    if (ack && ["post_message", "edit_message"].includes(entry.frame.name) && (this.room.cursor.after ?? -1) < ack.revision && this.window.isLive) {
      // The event itself takes the place of the line, or of the wording; until it comes that stays.
      this.acked.set(entry.id, { entry, revision: ack.revision });
    }
    if (refusal?.code === "not_a_member") this.window.members.delete(this.me);
    this.emit("changed");
    this.emit("head");
  }

  /** Resolves once it is on its way, of which `settled` tells then; rejects if the client does not take it. */
  post(text, kind, replyTo) {
    if (this.window.isDetached) this.room.restart();
    const id = randomId();
    return this.taken(id, this.room.post(text, { kind, replyTo, id }));
  }

  /** The same for another wording of a message. */
  async edit(target, text) {
    if (this.window.byRevision.get(target)?.isRemoved) throw new Error("the message was removed meanwhile");
    const id = randomId();
    return this.taken(id, this.room.command("edit_message", { target, text }, { id }));
  }

  async taken(id, answer) {
    answer.catch(() => {});
    if (!this.client.pending.some((entry) => entry.id === id)) await answer;
  }

  /** Sends what was refused or has expired again. */
  async retry(item) {
    const refused = this.refusals.get(item.id);
    if (!refused) return this.client.resend(item.id);
    const { refusal, entry: { frame, epoch } } = refused;
    // An earlier try may have been recorded whose answer was lost: under the same id that stays its
    // one effect. Only an id that stands for something else is of no use.
    const id = refusal.code === "command_id_reused" || !this.isOf(epoch) ? randomId() : item.id;
    const { reply_to: replyTo, ...data } = frame.data;
    this.refusals.remove(item.id);
    try {
      await this.taken(id, this.room.command(frame.name, replyTo === undefined || !this.isOf(epoch) ? data : frame.data, { id }));
    } catch {
      this.refusals.keep(refused);
    }
    return undefined;
  }

  discard(item) {
    if (!this.refusals.remove(item.id)) this.client.discard(item.id);
  }

  /** Resolves once this person is called so here; rejects with what is refused. */
  rename(name) {
    return this.room.command("rename_member", { display_name: name });
  }

  async join() {
    await this.room.join();
    if (!this.isMember) this.window.tell(this.me, bareId(this.me));
    this.emit("head");
  }

  async older() {
    const { window } = this;
    if (this.isLoading || !window.hasMore || window.oldest === null) return;
    this.isLoading = true;
    const heldBefore = window.items.length;
    try {
      // A page of nothing but edits and reactions shows nothing: ask on, until something does.
      while (window.hasMore && window.items.length === heldBefore) {
        const { oldest } = window;
        const page = await this.room.history({ before: oldest, limit: HISTORY_LIMIT });
        // A reset in between makes the page one of another window.
        if (window.oldest !== oldest) break;
        window.prepend(page.events, page.more);
        if (window.isDetached) break;
      }
    } catch {
      // Scrolling up asks again.
    } finally {
      this.isLoading = false;
    }
    this.emit("changed");
  }

  async loadMembers(tries = 0) {
    clearTimeout(this.membersTimer);
    try {
      this.window.setMembers(await this.client.api.members(this.id));
    } catch ({ status, afterMs }) {
      // Until then the events tell who is in, as far as they are loaded. A no to the reader stays one.
      if (status === undefined || status >= 500 || status === TOO_FAST) {
        const waitMs = Math.min(MEMBERS_AGAIN_MAX_MS, MEMBERS_AGAIN_MS * 1.5 ** tries);
        if (this.room.state !== "left") this.membersTimer = setTimeout(() => this.loadMembers(tries + 1), Math.max(waitMs, afterMs ?? 0));
        return;
      }
    }
    this.window.membersKnown = true;
    this.emit("head");
    this.emit("changed");
  }

  nameOf(member) {
    return this.window.nameOf(member);
  }

  /** This person's own last message, to be edited. */
  ownLast() {
    return this.window.items.findLast((item) => item.type === "message" && item.by === this.me && !item.isRemoved);
  }

  /** The title, as far as the events or the list tell, or the room's own document was asked for. */
  title(listed) {
    return this.window.title === this.id ? listed ?? this.askedTitle ?? this.id : personal(this.window.title);
  }

  // For a room whose opening is not loaded and that is far down the list.
  async loadTitle() {
    if (this.askedTitle !== undefined || this.window.title !== this.id) return;
    this.askedTitle = null;
    try {
      const { title } = await this.client.api.room(this.id);
      this.askedTitle = personal(title) || null;
      this.emit("head");
    } catch {
      this.askedTitle = undefined; // with the next list it is asked for again
    }
  }
}

// A command in words: a text, or what it would have done.
function wordsOf(name, { text, emoji }) {
  switch (name) {
    case "post_message":
    case "edit_message": return text;
    case "add_reaction": return `Reaction ${emoji}`;
    case "remove_reaction": return `Removal of the reaction ${emoji}`;
    case "redact_message": return "Removal of a message";
    default: return name.replaceAll("_", " ");
  }
}
