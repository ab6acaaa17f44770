// Long polls and posts: the last resort, for where not even a stream gets through.

import { JSON_TYPE, beginning, headersOf, postedLine } from "./posts.js";

/** How long the server may hold a poll, in seconds. */
const WAIT_S = 25;
/** A longer cursor, of a session with many rooms, goes as a body: what is on the way may take no longer address. */
const CURSOR_IN_ADDRESS_MAX = 4_000;
const MALFORMED_CLOSE = 4500;

/** @param {{fetch: typeof fetch}} parts */
export function pollTransport(parts) {
  return (link) => postedLine(parts, link, async ({ hello, over, ask, isOver }) => {
    const take = async (path, init) => {
      const { cursor, messages, close } = await (await ask(path, init)).json();
      if (isOver()) return null;
      link.heard();
      for (const message of messages) link.message(message);
      if (close !== undefined) over(close, "");
      return cursor;
    };
    const goOn = async (cursor) => {
      const headers = await headersOf(link, hello);
      if (cursor.length <= CURSOR_IN_ADDRESS_MAX) return take(`/api/poll?cursor=${encodeURIComponent(cursor)}&wait=${WAIT_S}`, { headers });
      const init = { method: "POST", headers: { ...headers, ...JSON_TYPE }, body: JSON.stringify({ cursor }) };
      return take(`/api/poll?wait=${WAIT_S}`, init);
    };
    let cursor = await take("/api/poll?wait=0", beginning(hello));
    while (!isOver()) {
      // A cursor that is not taken, by another version of the server say, is no fault of the hello: begin anew.
      cursor = await goOn(cursor).catch((error) => {
        throw error.code === MALFORMED_CLOSE ? new Error(error.message, { cause: error }) : error;
      });
    }
  });
}
