// Who is at this window, and how it is to look.

import { byId, idProblem, recall, remember, say } from "./dom.js";
import { icon, placeIcons } from "./icons.js";

const THEMES = ["auto", "light", "dark"];

/** Calls `start(name, token)` once it is known who this is; without accounts there is no token. */
export function who(start) {
  placeIcons();
  wireTheme();
  const enter = (name, token) => {
    remember("sessionStorage", "user", name);
    remember("localStorage", "user", name);
    remember("sessionStorage", "token", token ?? "");
    byId("welcome").hidden = true;
    byId("app").hidden = false;
    start(name, token);
  };
  const token = recall("sessionStorage", "token");
  const wanted = recall("sessionStorage", "token-wanted");
  if (wanted) return tokenOrName(wanted, enter);
  if (token) return enter(userOf(token), token);
  return name(enter);
}

// What an earlier server wanted at this address this one may not.
async function tokenOrName(wanted, enter) {
  if (!await takesNames()) return askToken(wanted, enter);
  forget();
  return name(enter);
}

function name(enter) {
  const given = new URLSearchParams(location.search).get("user") ?? recall("sessionStorage", "user");
  if (given && !idProblem("The name", given)) enter(given);
  else if (given) ask(given, idProblem("The name", given), enter);
  else ask(recall("localStorage", "user") ?? "", null, enter);
  return undefined;
}

/** The server took neither the name nor the token: asks for a token. */
export function refused() {
  const had = recall("sessionStorage", "token");
  remember("sessionStorage", "token-wanted", had ? "The server does not accept this token any more." : "This server asks for a token.");
  location.reload();
}

/** The server did not understand: if that is because it takes no token, this asks for a name. */
export async function unwanted() {
  if (!recall("sessionStorage", "token") || !await takesNames()) return;
  forget();
  location.reload();
}

const takesNames = async () => (await fetch("/api/rooms?limit=1").catch(() => null))?.ok === true;

/** Forgets who this is. */
export function forget() {
  for (const key of ["user", "token", "token-wanted"]) remember("sessionStorage", key, "");
}

function askToken(why, enter) {
  byId("welcome").hidden = false;
  byId("welcome-token-row").hidden = false;
  for (const element of [byId("welcome-name"), byId("welcome-name").labels[0]]) element.hidden = true;
  byId("welcome-about").textContent = why;
  const input = byId("welcome-token");
  input.focus();
  byId("welcome-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = input.value.trim();
    const user = userOf(token);
    if (!user) return say(byId("welcome-error"), "This is no token: a JSON Web Token that names its user is expected.");
    remember("sessionStorage", "token-wanted", "");
    return enter(user, token);
  });
}

// Whose token it is, by its own account; the server checks that.
function userOf(token) {
  try {
    const [, payload] = token.split(".");
    return JSON.parse(atob(payload.replace(/-/g, "+").replace(/_/g, "/"))).sub ?? null;
  } catch {
    return null;
  }
}

function ask(name, problem, enter) {
  byId("welcome").hidden = false;
  const input = byId("welcome-name");
  input.value = name;
  say(byId("welcome-error"), problem);
  input.focus();
  input.select();
  byId("welcome-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = input.value.trim();
    const refused = idProblem("The name", typed);
    if (!refused) return enter(typed);
    say(byId("welcome-error"), refused);
    return input.focus();
  });
}

function wireTheme() {
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    byId("theme").replaceChildren(icon(theme));
    byId("theme").title = `Colours: ${theme === "auto" ? "as the system" : theme}`;
    byId("theme").setAttribute("aria-label", byId("theme").title);
    remember("localStorage", "theme", theme);
  };
  const known = recall("localStorage", "theme");
  show(THEMES.includes(known) ? known : "auto");
  byId("theme").addEventListener("click", () => {
    show(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
  });
}
