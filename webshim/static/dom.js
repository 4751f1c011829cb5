/** Making elements, without markup in strings: text from outside can never become an element. */

import { ICONS } from "./icons.js";

/**
 * One element. `properties` are set on it; those with a dash and `role` as attributes, `on` as listeners.
 *
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, unknown> & {on?: Record<string, (event: any) => void>}} [properties]
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "on") {
      for (const [event, listener] of Object.entries(properties.on ?? {})) made.addEventListener(event, listener);
    } else if (key.includes("-") || key === "role") {
      made.setAttribute(key, String(value));
    } else {
      Object.assign(made, { [key]: value });
    }
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * One of `ICONS`, for the eye only.
 *
 * @param {string} name
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  svg.dataset["icon"] = name;
  for (const line of name === "brand" ? ["brand", "under"] : [name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", ICONS[line]);
    svg.append(path);
  }
  return svg;
}

/**
 * A button with a name for who has its icon read out.
 *
 * @param {string} label what it does; also its tooltip
 * @param {string} picture
 * @param {(event: MouseEvent) => void} press
 * @param {string} [className]
 */
export function iconButton(label, picture, press, className = "icon-button") {
  return element(
    "button",
    { type: "button", className, title: label, "aria-label": label, on: { click: press } },
    icon(picture),
  );
}

/**
 * What stands in the page under this id. Its kind is the caller's knowledge of index.html.
 *
 * @template {HTMLElement} [Kind=HTMLElement]
 * @param {string} id
 * @returns {Kind}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return /** @type {Kind} */ (found);
}

/**
 * A sentence for screen readers, spoken once.
 *
 * @param {string} text
 */
export function announce(text) {
  byId("announcements").textContent = text;
}
