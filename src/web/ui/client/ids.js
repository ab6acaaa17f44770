// Ids that need no coordination.

/** 128 random bits in hex. `crypto.randomUUID` is missing on plain-HTTP pages of other machines. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
