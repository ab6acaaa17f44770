// One room that this page holds: its window of messages, who is in it, and what is on its way.

import { bareId, personal } from "./dom.js";
import { Emitter } from "/client/emitter.js";
import { ITEMS_MAX, Window } from "./window.js";

const HISTORY_LIMIT = 50;

/** Emits `changed` (draw again), `arrived` (a new message), `head` (title, members, who is here). */
export class Conversation extends Emitter {
  constructor(client, id) {
    super();
    this.client = client;
    this.me = client.user;
    this.id = id;
    this.window = new Window(id);
    this.refused = new Map(); // command id -> a message that the server did not take
    this.acked = new Map(); // command id -> { entry, revision }, recorded and not seen here yet
    this.isLoading = false;
    this.problem = null; // why the room is not to be read
    this.newFrom = null; // where this person had stopped reading
    this.holdsStill = () => false; // a reader far back keeps their place
    this.room = client.room(id);
    this.wire();
    this.loadMembers();
  }

  wire() {
    const { room, client } = this;
    room.on("reset", () => this.reset());
    room.on("event", (event) => this.event(event));
    room.on("live", () => this.live());
    for (const name of ["denied", "closed"]) room.on(name, (why) => this.ended(why));
    for (const name of ["presence", "typing", "unread"]) room.on(name, () => this.emit("head"));
    this.offs = [
      client.on("pending", () => this.emit("changed")),
      client.on("settled", (outcome) => this.settled(outcome)),
    ];
  }

  /** Lets the room go. */
  close() {
    for (const off of this.offs) off();
    this.room.unfollow();
  }

  get isMember() {
    return this.window.members.has(this.me);
  }

  reset() {
    const hadSome = this.window.oldest !== null;
    this.problem = null;
    this.window.clear();
    this.emit("changed");
    if (hadSome) this.loadMembers();
  }

  live() {
    this.window.isLive = true;
    if (this.newFrom === null && this.room.unread > 0 && this.room.seenRevision !== null) this.newFrom = this.room.seenRevision + 1;
    this.emit("changed");
    this.emit("head");
  }

  ended({ code, message }) {
    this.problem = { code, message };
    this.emit("head");
    this.emit("changed");
  }

  event(event) {
    const { window } = this;
    const { version } = window;
    if (event.command) this.acked.delete(event.command);
    const item = window.append(event, !this.holdsStill() || window.items.length < ITEMS_MAX);
    if (item?.type === "message" && window.isLive) this.emit("arrived", item);
    if (window.version !== version) this.emit("head");
    this.emit("changed");
  }

  // Messages that are not in the window yet, as items of it.
  get onTheirWay() {
    if (this.window.isDetached) return [];
    const mine = ({ frame }) => frame.room === this.id && frame.name === "post_message";
    const isLive = this.client.status.state === "live";
    const waiting = this.client.pending.filter(mine).map((entry) => this.item(entry,
      entry.state === "expired" ? "expired" : isLive ? "sending" : "waiting"));
    const acked = [...this.acked.values()].map(({ entry }) => this.item(entry, "sending"));
    const refused = [...this.refused.values()].map(({ entry, refusal }) =>
      ({ ...this.item(entry, "refused"), problem: refusal.detail ?? refusal.message }));
    return [...acked, ...waiting, ...refused];
  }

  item({ id, frame: { data }, createdAt }, state) {
    return {
      type: "message", key: `pending-${id}`, id, by: this.me, at: new Date(createdAt), text: data.text, kind: data.kind ?? "text",
      replyTo: data.reply_to ?? null, threadRoot: this.window.byRevision.get(data.reply_to)?.threadRoot ?? data.reply_to ?? null,
      version: 0, reactions: new Map(), changes: [], state,
    };
  }

  settled({ entry, ack, refusal }) {
    if (entry.frame.room !== this.id) return;
    if (ack && entry.frame.name === "post_message" && (this.room.cursor.after ?? -1) < ack.revision && this.window.isLive) {
      // The event itself takes the place of the line; until it comes the line stays.
      this.acked.set(entry.id, { entry, revision: ack.revision });
    }
    if (refusal && entry.frame.name === "post_message") this.refused.set(entry.id, { entry, refusal });
    if (refusal?.code === "not_a_member") this.window.members.delete(this.me);
    this.emit("changed");
    this.emit("head");
  }

  post(text, kind, replyTo) {
    if (this.window.isDetached) this.room.restart();
    this.room.post(text, { kind, replyTo }).catch(() => {}); // `settled` tells
  }

  /** Sends a refused or expired message again. */
  retry(item) {
    const refused = this.refused.get(item.id);
    if (!refused) return this.client.resend(item.id);
    // It cannot become shorter by itself.
    if (refused.refusal.code === "too_big") return undefined;
    this.refused.delete(item.id);
    // An earlier try may have been recorded whose answer was lost: under the same id that stays its
    // one effect. Only an id that stands for something else is of no use.
    const id = refused.refusal.code === "command_id_reused" ? undefined : item.id;
    return this.room.post(item.text, { kind: item.kind, replyTo: item.replyTo, ...(id && { id }) }).catch(() => {});
  }

  discard(item) {
    if (this.refused.delete(item.id)) this.emit("changed");
    else this.client.discard(item.id);
  }

  async join() {
    await this.room.join();
    if (!this.isMember) this.window.members.set(this.me, bareId(this.me));
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

  async loadMembers() {
    try {
      this.window.setMembers(await this.client.api.members(this.id));
    } catch {
      // The events tell who is in, as far as they are loaded.
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

  /** The title, as far as the events or the list tell. */
  title(listed) {
    return this.window.title === this.id ? listed ?? this.id : personal(this.window.title);
  }
}
