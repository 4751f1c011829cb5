/** The settings as a dialog, with a terminal that shows them. */

import { fillKeys, logOut, MAC } from "./actions.js";
import { byId, element } from "./dom.js";
import { change, FIELDS, onChange, settings } from "./settings.js";
import { looks, options } from "./terminal.js";
import { Terminal } from "./vendor/xterm.js";

/** @typedef {keyof import("./settings.js").Settings} Name */

const SAMPLE = [
  "\x1b[32myou@sandbox\x1b[0m:\x1b[34m~\x1b[0m$ ls",
  "\x1b[34mdocs\x1b[0m  \x1b[32mbuild\x1b[0m  README_FIRST.md",
  "┌──────────┬──────┐ \x1b[41m \x1b[42m \x1b[43m \x1b[44m \x1b[45m \x1b[46m \x1b[0m",
  "│ __init__ │ 0O1l │ \x1b[101m \x1b[102m \x1b[103m \x1b[104m \x1b[105m \x1b[106m \x1b[0m",
  "└──────────┴──────┘ \x1b[31merror\x1b[0m \x1b[33mwarning\x1b[0m",
  "\x1b[32myou@sandbox\x1b[0m:\x1b[34m~\x1b[0m$ ",
].join("\r\n");

const sample = element("div", { className: "sample", inert: true });
const rows = Object.keys(FIELDS).map((name) => row(/** @type {Name} */ (name)));
const keys = element("dl", { id: "key-help", className: "keys" });
const user = element("span", { id: "user" });
const logout = element("button", { id: "logout", className: "button", type: "button" }, "Log out");
const close = element("button", { className: "button primary", value: "close" }, "Done");
const dialog = element(
  "dialog",
  { id: "settings", className: "wide", "aria-labelledby": "settings-title" },
  element(
    "form",
    { method: "dialog" },
    element("h2", { id: "settings-title" }, "Settings"),
    element("div", { className: "fields" }, ...rows),
    sample,
    element("details", {}, element("summary", {}, "Keys"), keys),
    element("div", { className: "row foot" }, user, logout, close),
  ),
);
document.body.append(dialog);
fillKeys(keys);
logout.addEventListener("click", () => void logOut());
onChange(show);

/** @type {Terminal | undefined} */
let preview;

/** @param {import("./actions.js").Hands} page */
export function openSettings(page) {
  if (dialog.open) return;
  // A login by the proxy in front of the gateway comes with each request: it can be ended only there.
  const proxied = page.me.method === "proxy";
  user.textContent = proxied ? `${page.me.user}, logged in by a proxy: log out there` : page.me.user;
  logout.hidden = proxied;
  show();
  dialog.showModal();
  if (preview) return;
  preview = new Terminal({ ...options(), cols: 40, rows: 6, disableStdin: true, scrollback: 0 });
  preview.open(sample);
  preview.write(SAMPLE);
}

function show() {
  for (const name of /** @type {Name[]} */ (Object.keys(FIELDS))) {
    const { of, range, is } = FIELDS[name];
    const value = settings()[name];
    const field = /** @type {HTMLInputElement} */ (dialog.querySelector(`[name="${name}"]${of ? `[value="${value}"]` : ""}`));
    if (range) byId(name).textContent = String(value);
    else if (of || typeof is === "boolean") field.checked = of ? true : value === true;
    // Not while it is typed: what is left out of it would move the cursor.
    else if (field !== document.activeElement) field.value = String(value);
  }
  byId("fontName-row").hidden = settings().font !== "own";
  byId("option-row").hidden = !MAC;
  if (preview) Object.assign(preview.options, { ...looks(), scrollback: 0, screenReaderMode: false });
}

/** @param {Name} name */
function row(name) {
  const { title, of, range, is } = FIELDS[name];
  const id = `${name}-row`;
  const chosen = (/** @type {unknown} */ value) => change({ [name]: value });
  const input = (/** @type {Record<string, unknown>} */ properties) =>
    element("input", { name, ...properties, on: { input: ({ target }) => chosen(target.type === "checkbox" ? target.checked : target.value) } });
  const words = element("span", { id: `${name}-title` }, title);
  const group = { id, className: "row", "aria-labelledby": words.id };
  if (of) {
    const choices = Object.entries(of).map(([value, text]) => element("label", {}, input({ type: "radio", value }), element("span", {}, text)));
    return element("div", { ...group, role: "radiogroup" }, words, element("span", { className: "segments" }, ...choices));
  }
  if (range) {
    const step = (/** @type {string} */ sign, /** @type {string} */ label, /** @type {number} */ by) =>
      element("button", { type: "button", id: `${name}-${label}`.toLowerCase(), className: "button", "aria-label": label, on: { click: () => chosen(Number(settings()[name]) + by) } }, sign);
    const output = element("output", { id: name, "aria-live": "polite" });
    return element("div", { ...group, role: "group" }, words, element("span", { className: "stepper" }, step("−", "Smaller", -1), output, step("+", "Larger", 1)));
  }
  return element("label", { id, className: "row" }, words, input(typeof is === "boolean" ? { type: "checkbox" } : { spellcheck: false, autocomplete: "off" }));
}
