// Icons, drawn here so that they look the same whatever fonts a machine has.

const PATHS = {
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  menu: "M4 7h16M4 12h16M4 17h16",
  send: "M5 12h13M12 5l7 7-7 7",
  check: "M5 13l4.5 4.5L19 7",
  smile: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M8.5 14.5c.8 1.2 2 1.8 3.5 1.8s2.7-.6 3.5-1.8M9 9.6v.4M15 9.6v.4",
  reply: "M10 6L4 12l6 6M4 12h10a6 6 0 0 1 6 6",
  thread: "M5 5h14v10H11l-4 4v-4H5z",
  edit: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  trash: "M5 7h14M9 7V4.5h6V7M7 7l1 13h8l1-13",
  auto: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4",
  dark: "M19 14.5A8 8 0 0 1 9.5 5 8 8 0 1 0 19 14.5z",
  clock: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16M12 8v4.2l2.8 1.8",
};

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  picture.setAttribute("viewBox", "0 0 24 24");
  picture.setAttribute("aria-hidden", "true");
  picture.setAttribute("class", name === "auto" ? "icon-picture half" : "icon-picture");
  for (const part of name === "auto" ? PATHS.auto.split(/(?<=z)/) : [PATHS[name]]) {
    const path = document.createElementNS(space, "path");
    path.setAttribute("d", part);
    picture.append(path);
  }
  return picture;
}

/** Puts icons where the page names them. */
export function placeIcons(root = document) {
  for (const element of root.querySelectorAll("[data-icon]")) element.prepend(icon(element.dataset.icon));
}
