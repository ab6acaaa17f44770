// Which ways to the server there are, in order of preference.

import { socketAddress } from "./address.js";
import { pollTransport } from "./poll.js";
import { socketTransport, SUBPROTOCOL } from "./socket.js";
import { streamTransport } from "./stream.js";

const OPEN_WITHIN_MS = 8_000;

/** @param {{transports: string[], WebSocket?: typeof WebSocket, fetch: typeof fetch}} options */
export function transportsOf(options) {
  const known = {
    socket: options.WebSocket && {
      name: "socket",
      open: socketTransport(options),
      isThere: (url) => answers(options.WebSocket, url),
    },
    stream: { name: "stream", open: streamTransport(options), mayBeHeld: true },
    poll: { name: "poll", open: pollTransport(options) },
  };
  const found = options.transports.map((name) => known[name]).filter(Boolean);
  if (found.length === 0) throw new TypeError(`no transport of ${JSON.stringify(options.transports)} works here: expected some of ${Object.keys(known).join(", ")}`);
  return found;
}

/** Said first it is none of the protocol's beginnings: a server says so, and ends the line. */
const KNOCK = JSON.stringify({ type: "pong" });

/** Whether a WebSocket opens and what is said over it is answered: some on the way let nothing but the handshake pass. */
function answers(WebSocket, url) {
  return new Promise((resolve) => {
    const socket = new WebSocket(socketAddress(url), SUBPROTOCOL);
    const end = (isThere) => {
      clearTimeout(timer);
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close();
      resolve(isThere);
    };
    const timer = setTimeout(() => end(false), OPEN_WITHIN_MS);
    socket.onopen = () => socket.send(KNOCK);
    socket.onmessage = () => end(true);
    socket.onclose = socket.onerror = () => end(false);
  });
}
