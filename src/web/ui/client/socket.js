// The first choice of a transport: one WebSocket.
//
// Every transport is a function `(link) -> line`. `link` has `url`, `hello()`, and the calls
// `message(object)`, `heard()` and `closed({ code, reason })`, of which the last comes once.
// A line has `send(object)` and `close()`; where what is sent may wait for what went before also `tellLast()`,
// which has out what nobody would say again, and `leave()`, which does that and closes then.

import { socketAddress } from "./address.js";

export const SUBPROTOCOL = "dramatis.v1.json";

/** @param {{WebSocket: typeof WebSocket}} parts */
export function socketTransport(parts) {
  return (link) => {
    const socket = new parts.WebSocket(socketAddress(link.url), SUBPROTOCOL);
    let isOver = false;
    const over = (code, reason) => {
      if (isOver) return;
      isOver = true;
      link.closed({ code, reason });
    };
    socket.onopen = async () => {
      try {
        const hello = await link.hello();
        if (socket.readyState === 1) socket.send(JSON.stringify(hello));
      } catch (error) {
        over(1006, error.message);
        socket.close(1000);
      }
    };
    socket.onmessage = ({ data }) => {
      if (!isOver) receive(link, data);
    };
    socket.onclose = ({ code, reason }) => over(code, reason);
    // A close follows in the same breath, but not in Node 20 when it could not connect.
    socket.onerror = () => setTimeout(() => over(1006, "the WebSocket failed"), 0);
    return {
      send(message) {
        if (socket.readyState === 1) socket.send(JSON.stringify(message));
      },
      // A dead line may take minutes to report its own close, so this does not wait for it.
      close(code = 1000, reason = "") {
        over(code, reason);
        if (socket.readyState <= 1) socket.close(1000);
      },
    };
  };
}

/** Hands on the messages of a newline-joined text. */
export function receive(link, text) {
  link.heard();
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue;
    let message;
    try {
      message = JSON.parse(line);
    } catch {
      continue; // a frame that is no JSON tells this client nothing
    }
    link.message(message);
  }
}
