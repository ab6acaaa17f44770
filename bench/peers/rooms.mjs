// What both peers share: the answers to the driver's messages.
export class Rooms {
  #revisions = new Map();
  #broadcast;

  constructor(broadcast) {
    this.#broadcast = broadcast;
  }

  // Takes one message of a client; gives the answers. `follow` lets the client hear a room.
  hear(message, follow) {
    if (message.type === "hello") {
      const names = message.rooms.map(({ room }) => room);
      names.forEach(follow);
      const ready = { type: "ready", user: message.user, session: message.session, rooms: message.rooms };
      return [ready, ...names.map((room) => ({ type: "live", room, revision: this.#revisions.get(room) ?? 0 }))];
    }
    if (message.type !== "command") return [];
    const { id, room, name, data } = message;
    const revision = (this.#revisions.get(room) ?? -1) + 1;
    this.#revisions.set(room, revision);
    const position = String(revision);
    if (name === "post_message") {
      const event = { kind: "text", text: data.text };
      this.#broadcast(room, {
        type: "event", room, revision, position, name: "MessagePosted", version: 1, data: event,
        by: "poster", recorded_at: new Date().toISOString(),
      });
    }
    return [{ type: "ack", id, room, revision, position, duplicate: false }];
  }
}

// Says where the server listens, as dramatis does.
export function listening(port) {
  console.log(`listens on http://127.0.0.1:${port}`);
}
