// What the server knows of this person beyond rooms: which ask for them, and how far they have read each,
// on whatever device. It is asked for once, and then told by their own stream; of that only the latest page
// comes, and what it tells may be older.

import { Emitter } from "/client/emitter.js";

/** Rooms of a page, and pages at the most. */
const PAGE_LEN = 500;
const PAGES_MAX = 10;
/** It is asked for so often where it is not to be had now, and after so long. */
const TRIES_MAX = 20;
const AGAIN_MS = 2_000;

/** Emits `invitations` and `read` when those changed. */
export class Standing extends Emitter {
  #listed = []; // invitations as the server listed them: { room, title, by }
  #told = new Map(); // room -> the invitation, or null once it has ended, by events since the last reset
  #read = new Map(); // room -> the last revision read
  #asked;
  #timer;

  /** @param {import("/client.js").Client} client */
  constructor(client) {
    super();
    this.client = client;
    client.me.on("reset", () => this.#reset());
    client.me.on("event", ({ name, data }) => this.#event(name, data));
  }

  /** Those that wait for an answer. What events tell of a room is newer than the list, or the same. */
  get invitations() {
    const open = new Map(this.#listed.map((invitation) => [invitation.room, invitation]));
    for (const [room, invitation] of this.#told) {
      if (invitation) open.set(room, invitation);
      else open.delete(room);
    }
    return [...open.values()];
  }

  /** The last revision of a room that was read, on any device; null if none is known. */
  readOf(room) {
    return this.#read.get(room) ?? null;
  }

  #reset() {
    this.#listed = [];
    this.#told.clear();
    this.#read.clear();
    this.emit("invitations");
    this.#load();
  }

  #event(name, data) {
    if (name === "ReadMarkerMoved") {
      this.#reads(data.room, data.revision);
      this.emit("read");
    } else if (name === "InvitationReceived" || name === "InvitationEnded") {
      this.#told.set(data.room, name === "InvitationReceived" ? data : null);
      this.emit("invitations");
    }
  }

  #reads(room, revision) {
    this.#read.set(room, Math.max(revision, this.#read.get(room) ?? 0));
  }

  async #load(tries = 0) {
    clearTimeout(this.#timer);
    const asked = Symbol("asked");
    this.#asked = asked;
    try {
      let after;
      for (let page = 0; page < PAGES_MAX; page += 1) {
        const { invitations, rooms, next } = await this.client.api.me({ limit: PAGE_LEN, after });
        if (asked !== this.#asked) return;
        this.#listed = invitations;
        for (const { room, read } of rooms) if (read !== undefined) this.#reads(room.room, read);
        this.emit("invitations");
        this.emit("read");
        after = next;
        if (next === undefined) break;
      }
    } catch ({ status, afterMs }) {
      const comesLater = asked === this.#asked && (status === undefined || status >= 500);
      if (comesLater && tries < TRIES_MAX) this.#timer = setTimeout(() => this.#load(tries + 1), afterMs ?? AGAIN_MS);
    }
  }
}
