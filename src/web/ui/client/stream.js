// Server-sent events, read by `fetch`, and posts: for where a WebSocket does not get through.

import { beginning, postedLine } from "./posts.js";
import { receive } from "./socket.js";

/** @param {{fetch: typeof fetch}} parts */
export function streamTransport(parts) {
  return (link) => postedLine(parts, link, async ({ hello, over, ask, isOver }) => {
    const answer = await ask("/api/stream", beginning(hello));
    for await (const { event, data } of eventsOf(answer.body)) {
      if (isOver()) return;
      if (event === "close") over(JSON.parse(data).code, "");
      else receive(link, data);
    }
    over(1006, "the stream ended");
  });
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
