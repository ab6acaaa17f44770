// Who is at this window, and how it is to look.

import { byId, idProblem, recall, remember, say } from "./dom.js";
import { icon, placeIcons } from "./icons.js";

const THEMES = ["auto", "light", "dark"];

/** Calls `start(name)` once it is known who this is. */
export function who(start) {
  placeIcons();
  wireTheme();
  const enter = (name) => {
    remember("sessionStorage", "user", name);
    remember("localStorage", "user", name);
    byId("welcome").hidden = true;
    byId("app").hidden = false;
    start(name);
  };
  const given = new URLSearchParams(location.search).get("user") ?? recall("sessionStorage", "user");
  if (given && !idProblem("The name", given)) enter(given);
  else if (given) ask(given, idProblem("The name", given), enter);
  else ask(recall("localStorage", "user") ?? "", null, enter);
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
