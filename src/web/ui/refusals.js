// What this person wrote and the server did not take: kept over reloads, and for all tabs, until it is
// sent again, put back into a composer, or discarded. Nobody's words are lost in silence.

import { Emitter } from "/client/emitter.js";
import { byAge } from "/client/outbox.js";
import { defaultStore } from "/client/store.js";

/** Of other commands only the no is told: there is nothing in them to lose. */
const WRITINGS = ["post_message", "edit_message"];

/** Emits `changed` with a room: what was refused there is another list now. */
export class Refusals extends Emitter {
  #held = new Map(); // command id -> { id, entry, refusal }
  #unstored = new Set(); // ids of those that the storage had no room for
  #store;

  /** @param {import("/client.js").Client} client */
  constructor(client) {
    super();
    const space = `refused:${client.user}`;
    this.#store = defaultStore(space);
    this.#read();
    client.on("settled", ({ entry, refusal }) => {
      if (refusal && WRITINGS.includes(entry.frame.name)) this.keep({ id: entry.id, entry, refusal });
    });
    window.addEventListener("storage", ({ key }) => (key === null || key.startsWith(`${space}:`)) && this.#read());
  }

  /** Those of a room, oldest first. */
  of(room) {
    return [...this.#held.values()].filter(({ entry }) => entry.frame.room === room);
  }

  get(id) {
    return this.#held.get(id);
  }

  keep(refused) {
    this.#held.set(refused.id, refused);
    // A storage that is full costs only what a reload would lose.
    if (this.#try(() => this.#store.put(refused))) this.#unstored.delete(refused.id);
    else this.#unstored.add(refused.id);
    this.emit("changed", refused.entry.frame.room);
  }

  /** It is dealt with. @returns {boolean} whether it was there */
  remove(id) {
    const refused = this.#held.get(id);
    if (!refused) return false;
    this.#held.delete(id);
    this.#unstored.delete(id);
    this.#try(() => this.#store.remove(id));
    this.emit("changed", refused.entry.frame.room);
    return true;
  }

  // What another tab did, or this one before a reload.
  #read() {
    const rooms = new Set([...this.#held.values()].map(({ entry }) => entry.frame.room));
    const found = this.#store.list().filter(({ entry, refusal }) => entry?.frame?.room && refusal);
    found.push(...[...this.#unstored].map((id) => this.#held.get(id)));
    found.sort((one, other) => byAge(one.entry, other.entry));
    this.#held = new Map(found.map((refused) => [refused.id, refused]));
    for (const { entry } of found) rooms.add(entry.frame.room);
    for (const room of rooms) this.emit("changed", room);
  }

  // Whether the storage took it; it is held here else.
  #try(act) {
    try {
      act();
      return true;
    } catch {
      return false;
    }
  }
}
