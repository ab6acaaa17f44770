// Where commands wait that were not answered yet, so that they outlive the page.
//
// A store is anything with `list()`, `put(entry)` and `remove(id)`, plain or as promises; an
// entry is a JSON object with an `id`. Write another for a file or a phone's database.

/** Keeps entries for as long as the process lives, and says so: it `isVolatile`. */
export function memoryStore() {
  const entries = new Map();
  return {
    isVolatile: true,
    list: () => [...entries.values()],
    put: (entry) => void entries.set(entry.id, entry),
    remove: (id) => void entries.delete(id),
  };
}

/**
 * Keeps entries in `localStorage`: written before the command is sent, read by all tabs.
 * @param {string} space keeps users and servers apart
 * @param {Storage} storage
 */
export function localStore(space, storage = globalThis.localStorage) {
  const key = (id) => `${space}:${id}`;
  return {
    list() {
      const entries = [];
      for (let index = 0; index < storage.length; index += 1) {
        const name = storage.key(index);
        if (!name.startsWith(`${space}:`)) continue;
        try {
          entries.push(JSON.parse(storage.getItem(name)));
        } catch { /* not ours, or cut short */ }
      }
      return entries.filter((entry) => typeof entry?.id === "string");
    },
    put: (entry) => storage.setItem(key(entry.id), JSON.stringify(entry)),
    remove: (id) => storage.removeItem(key(id)),
  };
}

/**
 * Keeps entries in IndexedDB: more room than `localStorage`, written a moment after sending.
 * @param {string} space keeps users and servers apart
 */
export function indexedStore(space) {
  const database = new Promise((resolve, reject) => {
    const request = indexedDB.open(space, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("entries", { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  const run = async (mode, act) => {
    const transaction = (await database).transaction("entries", mode);
    const request = act(transaction.objectStore("entries"));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  };
  return {
    list: () => run("readonly", (entries) => entries.getAll()),
    put: (entry) => run("readwrite", (entries) => entries.put(entry)),
    remove: (id) => run("readwrite", (entries) => entries.delete(id)),
  };
}

/** The best store that this place has. One that is full still gives back what it holds. */
export function defaultStore(space) {
  try {
    return globalThis.localStorage.length >= 0 ? localStore(space) : memoryStore();
  } catch {
    return memoryStore();
  }
}
