// Named events with listeners. A listener that throws does not keep others from hearing.

// As an error that nobody caught, and past the other listeners.
function report(error) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(error);
  else queueMicrotask(() => { throw error; });
}

export class Emitter {
  #listeners = new Map();

  /**
   * Calls `listener` at every event of this name.
   * @param {string} name
   * @param {(value: any) => void} listener
   * @returns {() => void} call it to hear no more
   */
  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return () => this.#listeners.get(name)?.delete(listener);
  }

  /** Resolves with the next event of this name. */
  once(name) {
    return new Promise((resolve) => {
      const off = this.on(name, (value) => {
        off();
        resolve(value);
      });
    });
  }

  emit(name, value) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(value);
      } catch (error) {
        report(error);
      }
    }
  }
}
