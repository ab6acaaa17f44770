// The JavaScript client of dramatis, for browsers, Node and Deno. No dependencies.
//
//     import { connect } from "/client.js";
//
//     const client = connect({ user: "alice" });
//     const lobby = client.room("lobby");
//     lobby.on("event", (event) => console.log(event.revision, event.name, event.data));
//     await lobby.command("open_room", { title: "The lobby" }); // by whoever comes first; others join()
//     await lobby.post("good evening");
//
// What it sees to: events come in order and once, over reconnects, restarts of the server and
// changes of transport; commands are promises that outlive interruptions and reloads and have
// one effect each; the tabs of a person share one line.

import { serverAddress } from "./client/address.js";
import { Client } from "./client/client.js";
import { contentObjection } from "./client/content.js";

export { Client } from "./client/client.js";
export { ClientError, Expired, HttpError, Rejected } from "./client/errors.js";
export { EXPIRE_AFTER_MS } from "./client/outbox.js";
export { Room } from "./client/room.js";
export { indexedStore, localStore, memoryStore } from "./client/store.js";

/**
 * Opens a line to a server and keeps it. Returns at once: rooms may be followed and commands
 * given before the line stands.
 *
 * @param {object} [options]
 * @param {string|URL} [options.url] of the server, with the path under which a proxy serves it, if it does so; in a
 *   page, its own; needed elsewhere
 * @param {string} [options.user] in local mode: who this is
 * @param {string|((why: {again: boolean}) => string|Promise<string>)} [options.token] a token, or
 *   where to get one; asked with `again` once the last one ran out or was refused
 * @param {string} [options.account] with a token: whose it is; without it the token's `sub` tells, and where that
 *   cannot be read no line is shared and no command outlives the page. Two people at one browser so
 *   have a line each and do not send each other's commands. Needed to work offline from the start: until a
 *   source has given its first token, what waits is in memory alone, and what was kept before is not in `pending`
 * @param {string} [options.device] what the person would call this device
 * @param {string} [options.session] stable over reconnects; made and kept by itself
 * @param {boolean} [options.share] whether the tabs of a person share one line, where the browser can
 * @param {object} [options.store] where unanswered commands wait; see `client/store.js`
 * @param {number} [options.expireAfterMs] the age from which a command is handed back, not sent
 * @param {number} [options.ephemeralBytesMax] what the server takes as the data of an ephemeral, where its
 *   `socket.ephemeral.data_bytes_max` is set to another than 4,096
 * @param {string[]} [options.transports] `socket`, `stream`, `poll`, in order of preference
 * @param {typeof globalThis.WebSocket} [options.WebSocket] Node before 22 has none: without it
 *   the stream is used
 * @param {typeof globalThis.fetch} [options.fetch]
 * @returns {Client}
 * @throws {TypeError} for a `url` or `device` that is none
 */
export function connect(options = {}) {
  if (!options.url && !globalThis.location?.origin) throw new TypeError("`url` is needed outside of a page: expected the server's, such as \"http://127.0.0.1:7400\"");
  const device = options.device ?? "";
  const problem = typeof device === "string" ? contentObjection(device) : "expected text";
  if (problem !== null) throw new TypeError(`\`device\`: ${problem}`);
  return new Client({
    share: true,
    transports: ["socket", "stream", "poll"],
    WebSocket: globalThis.WebSocket,
    fetch: (...parts) => globalThis.fetch(...parts),
    ...options,
    url: serverAddress(options.url || globalThis.location.origin),
  });
}
