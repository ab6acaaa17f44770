// What this page holds of one room: a window of its messages, folded from events.
//
// It never touches the page. Items carry a `version` that rises with each change, so that the
// view redraws only what changed. What happened to a message outside the window is kept, and
// applied when history brings the message in.

import { bareId, personal } from "./dom.js";

export const ITEMS_MAX = 500;
/** Of all messages outside the window together, each folded. */
const CHANGES_MAX = 10_000;
/** The most different reactions to one message, and of all of them: what is given past that changes nothing, as on the server. */
const REACTIONS_MAX = 100;
const REACTED_MAX = 10_000;
export const TARGETED = new Set(["MessageEdited", "MessageRedacted", "ReactionAdded", "ReactionRemoved"]);

export class Window {
  constructor(id) {
    this.id = id;
    this.title = id;
    this.members = new Map(); // who is in: member -> display name
    this.names = new Map(); // every name ever seen: member -> display name
    this.isClosed = false;
    this.clear();
  }

  clear() {
    this.items = []; // ascending by revision
    this.byRevision = new Map();
    this.changes = new Map(); // target -> its changes, for targets outside the window
    this.changesCount = 0; // of all of them
    this.isInvited = null; // whether only the invited may come, as far as the events tell
    this.told = new Set(); // members whose coming and going the events told
    this.oldest = null; // the lowest revision folded in
    this.hasMore = false;
    this.isDetached = false; // scrolled so far back that the newest messages are not held
    this.isLive = false;
    this.version = (this.version ?? 0) + 1;
  }

  // The room has another history: what was told of it before counts no more. Who is in is as good as
  // known until the list comes.
  forgetRoom() {
    this.title = this.id;
    this.isClosed = false;
    this.names.clear();
    this.version += 1;
  }

  // Folds one event at the end; `keep` false holds the window still, for a reader far back.
  append(event, keep) {
    if (this.oldest === null) {
      this.oldest = event.revision;
      this.hasMore = event.revision > 0;
    }
    this.state(event);
    if (TARGETED.has(event.name)) return this.change(event);
    const item = this.item(event);
    if (!item) return null;
    if (!keep) this.isDetached = true;
    if (this.isDetached) return item;
    this.items.push(item);
    this.byRevision.set(item.revision, item);
    return item;
  }

  // Folds a page of history, ascending, before what is held.
  prepend(events, hasMore) {
    const items = [];
    for (const event of events) {
      if (this.oldest !== null && event.revision >= this.oldest) continue;
      if (TARGETED.has(event.name)) {
        this.change(event);
        continue;
      }
      if (!this.names.has(event.data.member) && event.data.display_name) {
        this.names.set(event.data.member, personal(event.data.display_name));
      }
      const item = this.item(event);
      if (!item) continue;
      items.push(item);
      this.byRevision.set(item.revision, item);
    }
    for (const item of items) this.applyKept(item);
    // What came last of these holds, where nothing later told.
    const told = events.findLast(({ name }) => name === "RoomOpened" || name === "RoomVisibilitySet");
    if (told) this.isInvited ??= told.data.visibility === "invited";
    this.items.unshift(...items);
    this.oldest = events[0]?.revision ?? this.oldest;
    this.hasMore = hasMore && events.length > 0;
    this.version += 1;
    while (this.items.length > ITEMS_MAX) {
      this.forget(this.items.pop());
      this.isDetached = true;
    }
  }

  // The messages of a thread, its first one included.
  thread(root) {
    return this.items.filter((item) => item.revision === root || item.threadRoot === root);
  }

  // Answers in each thread, by its first message, as far as they are held.
  replyCounts() {
    const counts = new Map();
    for (const { threadRoot } of this.items) {
      if (threadRoot != null) counts.set(threadRoot, (counts.get(threadRoot) ?? 0) + 1);
    }
    return counts;
  }

  // Drops the oldest beyond the limit; history brings them back.
  trim() {
    if (this.items.length <= ITEMS_MAX) return;
    for (const item of this.items.splice(0, this.items.length - ITEMS_MAX)) this.forget(item);
    this.oldest = this.items[0].revision;
    this.hasMore = true;
  }

  nameOf(member) {
    return this.names.get(member) ?? bareId(member);
  }

  // The list that the server keeps; it may lag behind the events, so these win.
  setMembers(list) {
    const known = this.members;
    this.members = new Map([...known].filter(([member]) => this.told.has(member)));
    for (const { member, display_name } of list) {
      if (this.told.has(member)) continue;
      this.members.set(member, personal(display_name) || bareId(member));
      if (!this.names.has(member)) this.names.set(member, personal(display_name) || bareId(member));
    }
    this.version += 1;
  }

  // Someone is in, whatever the list says until the event comes.
  tell(member, name) {
    this.told.add(member);
    this.members.set(member, name);
    this.version += 1;
  }

  // Takes a message as it reads now, from wherever it was read, in its place.
  put(item) {
    const held = this.byRevision.get(item.revision);
    if (held) {
      item.version = held.version + 1;
      this.items[this.items.indexOf(held)] = item;
    } else {
      const at = this.items.findLastIndex(({ revision }) => revision < item.revision) + 1;
      this.items.splice(at, 0, item);
    }
    this.byRevision.set(item.revision, item);
  }

  forget(item) {
    this.byRevision.delete(item.revision);
    if (item.changes.size > 0) this.keep(item.revision, item.changes.values());
  }

  keep(target, events) {
    const kept = this.take(target);
    for (const event of events) foldChange(kept, event);
    this.changes.set(target, kept);
    this.changesCount += kept.size;
    while (this.changesCount > CHANGES_MAX) this.take(this.changes.keys().next().value);
  }

  take(target) {
    const kept = this.changes.get(target) ?? new Map();
    this.changes.delete(target);
    this.changesCount -= kept.size;
    return kept;
  }

  applyKept(item) {
    const kept = [...this.take(item.revision).values()];
    kept.sort((one, other) => one.revision - other.revision);
    for (const event of kept) this.apply(item, event);
  }

  change(event) {
    const item = this.byRevision.get(event.data.target);
    if (item) this.apply(item, event);
    else this.keep(event.data.target, [event]);
    return null;
  }

  apply(item, event) {
    foldChange(item.changes, event);
    item.version += 1;
    if (item.isRemoved) return; // for good: it shows no reactions and takes none
    const { emoji } = event.data;
    const who = item.reactions.get(emoji) ?? new Set();
    switch (event.name) {
      case "MessageEdited":
        item.text = personal(event.data.text);
        item.isEdited = true;
        break;
      case "MessageRedacted":
        item.isRemoved = true;
        item.removedBy = event.by;
        item.reactions.clear();
        break;
      case "ReactionAdded":
        if (takesReaction(item, emoji)) item.reactions.set(emoji, who.add(event.by));
        break;
      default:
        who.delete(event.by);
        if (who.size === 0) item.reactions.delete(emoji);
    }
  }

  // Title and members; only events at the end tell what holds now.
  state({ name, data, by }) {
    switch (name) {
      case "RoomOpened":
        this.isInvited = false; // what says else is told after it
        this.title = data.title || this.id;
        break;
      case "RoomRenamed":
        this.title = data.title || this.id;
        break;
      case "RoomVisibilitySet":
        this.isInvited = data.visibility === "invited";
        return;
      case "RoomClosed":
        this.isClosed = true;
        break;
      case "MemberJoined":
      case "MemberRenamed":
        this.told.add(data.member);
        this.members.set(data.member, personal(data.display_name) || bareId(data.member));
        this.names.set(data.member, personal(data.display_name) || bareId(data.member));
        break;
      case "MemberLeft":
      case "MemberRemoved":
        this.told.add(data.member);
        this.members.delete(data.member);
        break;
      case "MessagePosted":
        if (!this.told.has(by)) this.members.set(by, this.nameOf(by)); // only members post
        return;
      default:
        return;
    }
    this.version += 1;
  }

  item(event) {
    const item = {
      key: event.revision,
      revision: event.revision,
      by: event.by,
      at: new Date(event.occurred_at ?? event.recorded_at),
      version: 0,
      changes: new Map(),
      reactions: new Map(),
    };
    if (event.name !== "MessagePosted") {
      const line = this.line(event);
      return line === null ? null : { ...item, type: "line", text: line };
    }
    const { kind, text, reply_to, thread_root } = event.data;
    const replyTo = reply_to ?? null;
    return { ...item, type: "message", kind, text: personal(text), replyTo, threadRoot: thread_root ?? replyTo };
  }

  line({ name, data, by }) {
    const who = this.nameOf(data.member ?? by);
    const why = data.reason ? ` (${data.reason})` : "";
    switch (name) {
      case "RoomOpened": return `${this.nameOf(by)} opened the room “${data.title}”`;
      case "RoomRenamed": return `${this.nameOf(by)} renamed the room to “${data.title}”`;
      case "RoomClosed": return `${this.nameOf(by)} closed the room${why}`;
      case "MemberJoined": return `${who} joined`;
      case "MemberInvited": return `${this.nameOf(by)} invited ${who}`;
      case "InvitationAccepted": return null; // their joining is told
      case "InvitationDeclined": return `${who} will not come${why}`;
      case "InvitationWithdrawn": return `${this.nameOf(by)} took the invitation of ${who} back`;
      case "RoomVisibilitySet":
        return `${this.nameOf(by)} opened the room to ${data.visibility === "open" ? "anyone" : "members only"}`;
      case "MemberRenamed": return `${bareId(data.member)} is now known as ${personal(data.display_name)}`;
      case "MemberLeft":
      case "MemberRemoved":
        return by === data.member ? `${who} left${why}` : `${this.nameOf(by)} removed ${who}${why}`;
      default: return `${this.nameOf(by)}: ${name}`; // a newer server may say more
    }
  }
}

// The last wording counts, the last of each reaction of each member, and of a removed message only that it is removed.
function foldChange(changes, event) {
  const { name, by, revision, data: { emoji } } = event;
  if (changes.has("MessageRedacted")) return;
  if (name === "MessageRedacted") changes.clear();
  const what = emoji === undefined ? name : `${by} ${emoji}`;
  if (!(changes.get(what)?.revision > revision)) changes.set(what, event);
}

function takesReaction({ reactions }, emoji) {
  let count = 0;
  for (const members of reactions.values()) count += members.size;
  return count < REACTED_MAX && (reactions.has(emoji) || reactions.size < REACTIONS_MAX);
}
