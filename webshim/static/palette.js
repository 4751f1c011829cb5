/** The palette: all actions, tabs and profiles, found by a few letters. */

import { actionOf, enabled, keyOf, perform } from "./actions.js";
import { element } from "./dom.js";

/**
 * @typedef {object} Entry
 * @property {string} title
 * @property {string} [key]
 * @property {(page: import("./actions.js").Hands) => unknown} run
 */

// The keyboard of a phone would hide the list: there the field has the focus only when it is touched.
const FINGERS = matchMedia("(pointer: coarse)");

const dialog = element("dialog", { id: "palette", "aria-label": "All commands" });
const field = element("input", {
  role: "combobox",
  "aria-label": "Find a command",
  "aria-controls": "palette-list",
  "aria-expanded": "true",
  "aria-autocomplete": "list",
  autocomplete: "off",
  spellcheck: false,
  placeholder: "Find a command, a tab, a profile",
});
const list = element("ul", { id: "palette-list", role: "listbox", "aria-label": "Commands", tabIndex: -1 });
const none = element("p", { className: "small", role: "status" });
dialog.append(field, list, none);
document.body.append(dialog);

/** @type {import("./actions.js").Hands | undefined} */
let page;
/** @type {Entry[]} */
let entries = [];

field.addEventListener("input", () => show());
dialog.addEventListener("keydown", (event) => {
  const rows = [...list.children];
  const at = rows.findIndex((row) => row.ariaSelected === "true");
  /** @type {Record<string, number>} */
  const targets = { ArrowDown: (at + 1) % rows.length, ArrowUp: (at + rows.length - 1) % rows.length };
  // Its own key closes it: a browser would print.
  if (actionOf(event)?.name === "palette") event.repeat || dialog.close();
  else if (event.key === "Enter" && !event.isComposing) /** @type {HTMLElement | undefined} */ (rows[at])?.click();
  else if (event.key in targets && rows.length) choose(rows[targets[event.key]]);
  else return;
  event.preventDefault();
});
// A press beside it is for what lies behind.
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

/** @param {import("./actions.js").Hands} hands */
export function openPalette(hands) {
  if (dialog.open) return dialog.close();
  page = hands;
  entries = [
    ...enabled(hands).filter(({ name }) => name !== "palette").map((action) => ({ ...action, key: keyOf(action) })),
    ...hands.tabs().map(({ label, select }) => ({ title: `Go to ${label}`, run: select })),
    ...hands.tabs().flatMap(({ label, bring }) => (bring ? { title: `Beside this terminal: ${label}`, run: bring } : [])),
    ...hands.me.profiles.map(({ name }) => ({ title: `New terminal: ${name}`, run: () => hands.create({ profile: name, name: null }) })),
  ];
  field.value = "";
  list.autofocus = FINGERS.matches;
  dialog.showModal();
  show();
}

/** The entries that have all words of the field, those first in which most of them begin a word. */
function show() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = entries.filter(({ title }) => words.every((word) => title.toLowerCase().includes(word)));
  const begun = ({ title = "" }) => words.filter((word) => ` ${title.toLowerCase()}`.includes(` ${word}`)).length;
  const first = ({ title = "" }) => Number(words.length > 0 && title.toLowerCase().startsWith(words[0]));
  found.sort((one, other) => begun(other) - begun(one) || first(other) - first(one));
  list.replaceChildren(...found.map(row));
  none.textContent = found.length ? "" : "There is no such command.";
  if (list.firstElementChild) choose(list.firstElementChild);
  else field.removeAttribute("aria-activedescendant");
}

/** @param {Entry} entry @param {number} index */
function row(entry, index) {
  const { title, key } = entry;
  const run = () => {
    dialog.close();
    if (!page) return;
    if (!FINGERS.matches) page.shown()?.screen?.focus();
    void perform(page, entry);
  };
  return element(
    "li",
    { id: `command-${index}`, role: "option", "aria-selected": "false", on: { click: run } },
    element("span", { className: "label" }, title),
    key ? element("kbd", {}, key) : null,
  );
}

/** @param {Element} row */
function choose(row) {
  for (const each of list.children) each.ariaSelected = String(each === row);
  row.scrollIntoView({ block: "nearest" });
  field.setAttribute("aria-activedescendant", row.id);
}
