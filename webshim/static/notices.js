/** Short messages in the corner, some with one button. They go by themselves, but not while they are pointed at. */

import { byId, element, iconButton } from "./dom.js";

const SHOWN_SECONDS = 6;
const SHOWN_WITH_BUTTON_SECONDS = 20;
const MOST = 4;

/**
 * @param {string} text
 * @param {{label: string, act: () => void} | null} [action]
 * @param {"plain" | "bad"} [kind]
 */
export function notify(text, action = null, kind = "plain") {
  const shelf = byId("notices");
  const notice = element("div", { className: `notice ${kind}` }, element("span", { textContent: text }));
  const close = () => notice.remove();
  if (action !== null) {
    const press = () => (close(), action.act());
    notice.append(element("button", { type: "button", className: "button", on: { click: press } }, action.label));
  }
  notice.append(iconButton("Dismiss", "close", close));
  shelf.append(notice);
  // Those that only say something go first; what is under way has its way to be cancelled here.
  const go = ["progress, .button", "progress", ""].map((kept) => `:scope > :not(:last-child${kept && `, :has(${kept})`})`);
  while (shelf.children.length > MOST) go.map((which) => shelf.querySelector(which)).find(Boolean)?.remove();
  leaveLater(notice, action === null ? SHOWN_SECONDS : SHOWN_WITH_BUTTON_SECONDS);
}

/** @param {string} text */
export function complain(text) {
  notify(text, null, "bad");
}

/**
 * @param {HTMLElement} notice
 * @param {number} seconds
 */
function leaveLater(notice, seconds) {
  let timer = 0;
  const start = () => {
    clearTimeout(timer);
    timer = setTimeout(() => notice.remove(), seconds * 1000);
  };
  notice.addEventListener("pointerenter", () => clearTimeout(timer));
  notice.addEventListener("focusin", () => clearTimeout(timer));
  notice.addEventListener("pointerleave", start);
  notice.addEventListener("focusout", start);
  start();
}
