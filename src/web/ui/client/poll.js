// Long polls and posts: the last resort, for where not even a stream gets through.

import { beginning, headersOf, postedLine } from "./posts.js";

/** How long the server may hold a poll, in seconds. */
const WAIT_S = 25;

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
    let cursor = await take("/api/poll?wait=0", beginning(hello));
    while (!isOver()) {
      cursor = await take(`/api/poll?cursor=${encodeURIComponent(cursor)}&wait=${WAIT_S}`, { headers: await headersOf(link, hello) });
    }
  });
}
