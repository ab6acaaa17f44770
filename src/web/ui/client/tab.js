// Who this tab is, also after a reload.

import { randomId } from "./ids.js";

const TAB_KEY = "dramatis:tab";

/** An id that a tab keeps over reloads; a new one where nothing is kept. */
export function tabId() {
  return kept("sessionStorage", TAB_KEY);
}

/** Another id for this tab, kept in place of the first: a copied tab has the id of its original. */
export function freshTabId() {
  try {
    globalThis.sessionStorage.removeItem(TAB_KEY);
  } catch { /* storage is switched off: nothing was kept */ }
  return tabId();
}

/**
 * The session to say hello with. Tabs that share a line share it; else each has its own, so
 * that one does not take the other's place.
 */
export function sessionId(space, isShared) {
  return kept(isShared ? "localStorage" : "sessionStorage", `${space}:session`);
}

/** Another session in place of the kept one, which goes on elsewhere: in a copy of all that is kept here. */
export function freshSessionId(space) {
  try {
    globalThis.localStorage.removeItem(`${space}:session`);
  } catch { /* nothing was kept */ }
  return sessionId(space, true);
}

/** The name of the lock that a tab holds for as long as it lives. */
export const tabLock = (space, tab) => `${space}:tab:${tab}`;

/**
 * Holds a tab's lock until `ended`, if it is granted before `signal` gives it up; rejects where it is not. `held()` is
 * called once it is.
 */
export function live(space, tab, ended, signal, held = () => {}) {
  return navigator.locks.request(tabLock(space, tab), { signal }, () => {
    held();
    if (ended.aborted) return undefined;
    return new Promise((release) => { ended.addEventListener("abort", release); });
  });
}

function kept(storage, key) {
  if (typeof document !== "object") return randomId();
  try {
    const known = globalThis[storage].getItem(key);
    if (known) return known;
    const fresh = randomId();
    globalThis[storage].setItem(key, fresh);
    return fresh;
  } catch {
    return randomId(); // storage is switched off
  }
}
