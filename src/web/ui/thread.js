// One thread beside the conversation: all of it, wherever the conversation's own window stands.
//
// What the window holds of it is there at once, the rest is read from the server; from then on every
// event of the room is looked at here too. Its messages are its own: the window may let go of its own.

import { personal } from "./dom.js";
import { TARGETED, Window } from "./window.js";

const PAGE_LEN = 500;
const PAGES_MAX = 10;

export class Thread {
  #since = []; // changes while the server is asked: what it answers may be of before them
  #loading = 0;
  #isClosed = false;

  /** @param {() => void} changed is called when there is something to draw */
  constructor(conversation, root, changed) {
    Object.assign(this, { conversation, root, changed });
    this.hasFailed = false; // the server has not given what is not held
    this.window = new Window(conversation.id);
    this.window.names = conversation.window.names;
    for (const item of conversation.window.thread(root)) this.window.put(copyOf(item));
    this.offs = [
      conversation.on("event", (event) => this.#event(event)),
      conversation.on("restarted", () => this.load()),
    ];
    if (!conversation.window.byRevision.has(root) || conversation.window.isDetached) this.load();
  }

  /** Its messages, oldest first. */
  get items() {
    return this.window.items;
  }

  close() {
    for (const off of this.offs) off();
    this.#isClosed = true;
  }

  /** Reads it from the server, as it is now. */
  async load() {
    this.#loading += 1;
    // First with all that was heard here; a server that is not so far in time may still give the most of it.
    this.hasFailed = !await this.#read(this.conversation.position) && !await this.#read(undefined);
    for (const event of this.#since) this.#change(event);
    this.#loading -= 1;
    if (this.#loading === 0) this.#since = [];
    if (!this.#isClosed) this.changed();
  }

  async #read(minPosition) {
    const { conversation: { client, id }, root } = this;
    try {
      let after;
      for (let page = 0; page < PAGES_MAX; page += 1) {
        const { messages, more } = await client.api.thread(id, root, { after, limit: PAGE_LEN, minPosition });
        for (const message of messages) this.window.put(itemOf(message));
        after = messages.at(-1)?.revision;
        if (!more || after === undefined) break;
      }
      return true;
    } catch {
      return false; // the part that is held stays on show
    }
  }

  #event(event) {
    const { name, data, revision } = event;
    if (TARGETED.has(name)) {
      if (this.#loading > 0) this.#since.push(event);
      this.#change(event);
    } else if (name === "MessagePosted" && !this.window.byRevision.has(revision)
      && (revision === this.root || (data.thread_root ?? data.reply_to) === this.root)) {
      this.window.put(this.window.item(event));
    }
  }

  #change(event) {
    if (this.window.byRevision.has(event.data.target)) this.window.change(event);
  }
}

function copyOf(item) {
  return { ...item, changes: new Map(), reactions: new Map([...item.reactions].map(([emoji, members]) => [emoji, new Set(members)])) };
}

// A message as the server's lists give it.
function itemOf({ revision, by, posted_at: at, kind, text, reply_to, thread_root, edited_at, redacted, reactions = {} }) {
  // The server keeps those of a removed message, which shows none.
  const given = redacted === undefined ? Object.entries(reactions) : [];
  return {
    type: "message", key: revision, revision, by, at: new Date(at), version: 0, changes: new Map(), kind, text: personal(text),
    replyTo: reply_to ?? null, threadRoot: thread_root ?? reply_to ?? null,
    isEdited: edited_at !== undefined, isRemoved: redacted !== undefined, removedBy: redacted?.by,
    reactions: new Map(given.map(([emoji, members]) => [emoji, new Set(members)])),
  };
}
