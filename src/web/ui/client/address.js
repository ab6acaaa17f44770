// Where a server is, and under that the address of all that is asked of it.

const EXPECTED = "expected http:// or https://, a host, and a path if a proxy serves it under one, such as \"https://chat.example/rooms\"";

/**
 * A server's address, without a slash at its end. Throws a `TypeError` at what is none. A path is
 * kept: behind a proxy that serves others as well, all that is asked lies under it.
 * @param {string|URL} url
 */
export function serverAddress(url) {
  const refuse = (why) => { throw new TypeError(`\`url\` is the server's address: ${EXPECTED}; got ${JSON.stringify(String(url))}${why}`); };
  let given;
  try {
    given = new URL(url);
  } catch {
    refuse("");
  }
  if (given.protocol !== "http:" && given.protocol !== "https:") refuse(": the WebSocket's address is made of it");
  if (given.search || given.hash) refuse(", which has a query or a fragment");
  if (given.username || given.password) refuse(", which has a name or a password: give a `token`");
  return `${given.origin}${given.pathname.replace(/\/+$/, "")}`;
}

/** The address of a path, such as `/api/health`, at a server. @param {string} url of the server */
export function addressOf(url, path) {
  return new URL(`${url}/${path.replace(/^\/+/, "")}`);
}

/** The address of a server's WebSocket. */
export function socketAddress(url) {
  const address = addressOf(url, "/socket");
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
}
