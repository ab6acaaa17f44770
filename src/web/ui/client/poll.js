// Long polls and posts: the last resort, for where not even a stream gets through.

import { Posts, closeCodeOf, headersOf } from "./posts.js";

/** How long the server may hold a poll, in seconds. */
const WAIT_S = 25;

/** @param {{fetch: typeof fetch}} parts */
export function pollTransport(parts) {
  return (link) => {
    const ending = new AbortController();
    let posts = null;
    let isOver = false;
    const over = (code, reason) => {
      if (isOver) return;
      isOver = true;
      ending.abort();
      link.closed({ code, reason });
    };
    const take = async (path, init) => {
      const answer = await parts.fetch(new URL(path, link.url), { ...init, signal: ending.signal });
      if (!answer.ok) throw Object.assign(new Error(`the server answered ${answer.status}`), { code: closeCodeOf(answer.status) });
      const { cursor, messages, close } = await answer.json();
      if (isOver) return null;
      link.heard();
      for (const message of messages) link.message(message);
      if (close !== undefined) over(close, "");
      return cursor;
    };
    const run = async () => {
      const hello = await link.hello();
      posts = new Posts({ fetch: parts.fetch, link, hello, signal: ending.signal, lost: over });
      let cursor = await take("/api/poll?wait=0", {
        method: "POST",
        headers: { "content-type": "application/json", ...(hello.token && { authorization: `Bearer ${hello.token}` }) },
        body: JSON.stringify(hello),
      });
      while (!isOver) {
        cursor = await take(`/api/poll?cursor=${encodeURIComponent(cursor)}&wait=${WAIT_S}`, { headers: await headersOf(link, hello) });
      }
    };
    run().catch((error) => over(error.code >= 1000 ? error.code : 1006, error.message));
    return { send: (message) => posts?.send(message), close: (code = 1000, reason = "") => over(code, reason) };
  };
}
