/** Menus: of a terminal, where the right button was pressed, the actions by group; and of others. */

import { enabled, keyOf, MENU, perform } from "./actions.js";
import { copy } from "./clipboard.js";
import { byId, element } from "./dom.js";

/** @typedef {import("./actions.js").Hands} Hands */

/**
 * @typedef {object} Item
 * @property {string} title
 * @property {string} [key]
 * @property {boolean} [useless] now
 * @property {() => unknown} act
 */

const menu = element("div", { id: "context", popover: "auto", role: "menu" });

menu.addEventListener("keydown", (event) => {
  const items = [...menu.querySelectorAll("button")].filter(({ ariaDisabled }) => ariaDisabled !== "true");
  const at = items.findIndex((item) => item === document.activeElement);
  const last = items.length - 1;
  /** @type {Record<string, number>} */
  const targets = { ArrowDown: at === last ? 0 : at + 1, ArrowUp: at <= 0 ? last : at - 1, Home: 0, End: last };
  if (event.key in targets) items[targets[event.key]]?.focus();
  else if (event.key === "Tab") menu.hidePopover();
  else return;
  event.preventDefault();
});

/**
 * @param {Hands} page
 * @param {{clientX: number, clientY: number}} place
 * @param {string} link under the pointer, or none
 */
export function openMenu(page, { clientX, clientY }, link) {
  const now = enabled(page);
  const item = (/** @type {Pick<import("./actions.js").Action, "title" | "run">} */ action) => ({
    title: action.title,
    act: () => (page.shown()?.screen?.focus(), void perform(page, action)),
  });
  /** @type {Item[][]} */
  const groups = MENU.map((actions) =>
    actions.map((action) => ({ ...item(action), key: keyOf(action), useless: !now.includes(action) })),
  );
  if (link) groups[0].push(item({ title: "Copy the link", run: () => copy(link) }));
  popUp(byId("panels"), "Terminal", groups, { clientX, clientY });
}

/**
 * @param {HTMLElement} holder what it belongs to
 * @param {string} label
 * @param {Item[][]} groups
 * @param {{clientX: number, clientY: number}} place
 */
export function popUp(holder, label, groups, { clientX, clientY }) {
  holder.append(menu);
  menu.setAttribute("aria-label", label);
  menu.replaceChildren(...groups.flatMap((items) => [element("hr"), ...items.map(row)]).slice(1));
  menu.showPopover();
  const { width, height } = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(0, Math.min(clientX, innerWidth - width - 4))}px`;
  menu.style.top = `${Math.max(0, Math.min(clientY, innerHeight - height - 4))}px`;
  /** @type {HTMLElement | null} */ (menu.querySelector("[aria-disabled=false]"))?.focus();
}

/** @param {Item} item */
function row({ title, key, useless = false, act }) {
  const press = () => {
    if (useless) return;
    menu.hidePopover();
    act();
  };
  return element(
    "button",
    { type: "button", role: "menuitem", tabIndex: -1, "aria-disabled": String(useless), on: { click: press } },
    title,
    key ? element("kbd", {}, key) : null,
  );
}
