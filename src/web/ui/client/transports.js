// Which ways to the server there are, in order of preference.

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
    stream: { name: "stream", open: streamTransport(options) },
    poll: { name: "poll", open: pollTransport(options) },
  };
  const found = options.transports.map((name) => known[name]).filter(Boolean);
  if (found.length === 0) throw new TypeError(`no transport of ${JSON.stringify(options.transports)} works here: expected some of ${Object.keys(known).join(", ")}`);
  return found;
}

/** Whether a WebSocket opens, without a word over it. */
function answers(WebSocket, url) {
  return new Promise((resolve) => {
    const address = new URL("/socket", url);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address.href, SUBPROTOCOL);
    const end = (isThere) => {
      clearTimeout(timer);
      socket.onopen = socket.onclose = socket.onerror = null;
      socket.close();
      resolve(isThere);
    };
    const timer = setTimeout(() => end(false), OPEN_WITHIN_MS);
    socket.onopen = () => end(true);
    socket.onclose = socket.onerror = () => end(false);
  });
}
