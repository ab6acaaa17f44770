// Server-sent events, read by `fetch`, and posts: for where a WebSocket does not get through.

import { Posts, closeCodeOf } from "./posts.js";
import { receive } from "./socket.js";

/** @param {{fetch: typeof fetch}} parts */
export function streamTransport(parts) {
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
    const run = async () => {
      const hello = await link.hello();
      posts = new Posts({ fetch: parts.fetch, link, hello, signal: ending.signal, lost: over });
      const answer = await parts.fetch(new URL("/api/stream", link.url), {
        method: "POST",
        headers: { "content-type": "application/json", accept: "text/event-stream", ...(hello.token && { authorization: `Bearer ${hello.token}` }) },
        body: JSON.stringify(hello),
        signal: ending.signal,
      });
      if (!answer.ok) throw Object.assign(new Error(`the server answered ${answer.status}`), { code: closeCodeOf(answer.status) });
      for await (const { event, data } of eventsOf(answer.body)) {
        if (isOver) return;
        if (event === "close") return over(JSON.parse(data).code, "");
        receive(link, data);
      }
      over(1006, "the stream ended");
    };
    run().catch((error) => over(error.code >= 1000 ? error.code : 1006, error.message));
    return { send: (message) => posts?.send(message), close: (code = 1000, reason = "") => over(code, reason) };
  };
}

/** The events of a stream, as `{ event, data }`. */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let fields = { event: "message", data: [] };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (fields.data.length > 0) yield { event: fields.event, data: fields.data.join("\n") };
        fields = { event: "message", data: [] };
      } else if (line.startsWith("data:")) fields.data.push(line.slice(line[5] === " " ? 6 : 5));
      else if (line.startsWith("event:")) fields.event = line.slice(6).trim();
    }
  }
}
