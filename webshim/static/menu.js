/** The menu of a terminal, where the right button was pressed: actions by group. */

import { enabled, keyOf, MENU, perform } from "./actions.js";
import { copy } from "./clipboard.js";
import { byId, element } from "./dom.js";

/** @typedef {import("./actions.js").Hands} Hands */

const menu = element("div", { id: "context", popover: "auto", role: "menu", "aria-label": "Terminal" });
byId("panels").append(menu);

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
  const groups = MENU.map((actions) => actions.map((action) => item(page, action, keyOf(action), now.includes(action))));
  if (link) groups[0].push(item(page, { title: "Copy the link", run: () => copy(link) }, "", true));
  const rows = groups.flatMap((items) => [element("hr"), ...items]).slice(1);
  menu.replaceChildren(...rows);
  menu.showPopover();
  const { width, height } = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(0, Math.min(clientX, innerWidth - width - 4))}px`;
  menu.style.top = `${Math.max(0, Math.min(clientY, innerHeight - height - 4))}px`;
  /** @type {HTMLElement | null} */ (menu.querySelector("[aria-disabled=false]"))?.focus();
}

/**
 * @param {Hands} page
 * @param {Pick<import("./actions.js").Action, "title" | "run">} action
 * @param {string} key
 * @param {boolean} useful
 */
function item(page, action, key, useful) {
  const press = () => {
    if (!useful) return;
    menu.hidePopover();
    page.shown()?.screen?.focus();
    void perform(page, action);
  };
  return element(
    "button",
    { type: "button", role: "menuitem", tabIndex: -1, "aria-disabled": String(!useful), on: { click: press } },
    action.title,
    key ? element("kbd", {}, key) : null,
  );
}
