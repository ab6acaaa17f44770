// Small helpers that every part of the page shares. No state, no protocol.

export const byId = (id) => document.getElementById(id);

// Makes an element; children are nodes or text, so that nothing is ever parsed as HTML.
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function button(className, label, text, onClick) {
  const element = make("button", className, text);
  element.type = "button";
  element.title = label;
  element.setAttribute("aria-label", label);
  if (onClick) element.addEventListener("click", onClick);
  return element;
}

// Makes these the children, in this order, and touches none that is in its place: what has the focus
// keeps it, and what is just being pressed is there when it is let go.
export function arrange(parent, elements) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const wanted = new Set(elements);
  for (const element of [...parent.children]) if (!wanted.has(element)) element.remove();
  let cursor = parent.firstElementChild;
  for (const element of elements) {
    if (element === cursor) cursor = cursor.nextElementSibling;
    else parent.insertBefore(element, cursor);
  }
  if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

export function say(element, text) {
  element.textContent = text ?? "";
  element.hidden = !text;
}

/** Where there is one column, which an open drawer or panel covers; as `chat.css` has it. */
export const PHONE = "(max-width: 700px)";

// What an open drawer or panel covers takes no focus.
export function shield() {
  const covers = (name) => window.matchMedia(PHONE).matches && document.body.classList.contains(name);
  const [drawer, panel] = [covers("drawer-open"), covers("panel-open")];
  for (const element of document.querySelectorAll("main, #skip")) element.inert = drawer || panel;
  byId("sidebar").inert = panel && !drawer;
  byId("panel").inert = drawer;
}

// Storage may be switched off; the page then forgets, and works.
export function remember(storage, key, value) {
  try {
    window[storage].setItem(key, value);
  } catch { /* nothing depends on it */ }
}

export function recall(storage, key) {
  try {
    return window[storage].getItem(key);
  } catch {
    return null;
  }
}

const ID_ALLOWED = /^[!-~]{1,128}$/;
const ID_REFUSED = /[/%:"<>]/;

/** What would be a room's name stands for one's own stream. */
export const OWN_STREAM = "me";

// Why a text is no user or room id; null if it is one.
export function idProblem(what, text) {
  if (text === "") return `${what} is empty. Type 1 to 128 letters, digits or signs.`;
  if (text.length > 128) return `${what} has ${text.length} characters. Shorten it to 128.`;
  if (/\s/.test(text)) return `${what} has a space in it. Leave it out, or use - or _.`;
  const refused = text.match(ID_REFUSED);
  if (refused) return `${what} has ${refused[0]} in it. All of / % : " < > are reserved: leave it out.`;
  if (!ID_ALLOWED.test(text)) return `${what} may hold only ASCII letters, digits and signs (no accents or emoji).`;
  return null;
}

// A personal value is text, or sealed under a key that this page does not have.
export function personal(value) {
  if (typeof value === "string") return value;
  return value && typeof value === "object" ? "(sealed)" : "";
}

export const bareId = (member) => member.slice(member.indexOf(":") + 1);

// A steady colour for each member.
export function hueOf(member) {
  let hash = 7;
  for (const character of member) hash = (hash * 31 + character.codePointAt(0)) % 3600;
  return hash % 360;
}

export function paintAvatar(element, member, name) {
  element.textContent = firstSign(name).toUpperCase();
  element.style.setProperty("--hue", hueOf(member));
}

// What a reader takes for the first letter: a flag, say, is of several code points.
const signs = globalThis.Intl?.Segmenter ? new Intl.Segmenter() : null;
const firstSign = (text) => (signs ? signs.segment(text)[Symbol.iterator]().next().value?.segment : [...text][0]) ?? "?";

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", year: "numeric", month: "long", day: "numeric" });

export const clockText = (date) => clock.format(date);

export function dayText(date, now = new Date()) {
  const midnight = (at) => new Date(at.getFullYear(), at.getMonth(), at.getDate()).getTime();
  const daysAgo = Math.round((midnight(now) - midnight(date)) / 86_400_000);
  if (daysAgo === 0) return "Today";
  return daysAgo === 1 ? "Yesterday" : day.format(date);
}

// The same where there is little room: the hour of today, and the year only where it is another.
export function shortTime(date, now = new Date()) {
  const named = dayText(date, now);
  if (named === "Today") return clockText(date);
  if (named === "Yesterday") return named;
  const year = date.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return date.toLocaleDateString(undefined, { year, month: "short", day: "numeric" });
}
