/**
 * All that a person can do here by a name. One list makes the buttons of the header, the page's keys, the palette, the
 * menu of a terminal and the help: what is added to it is in all of them.
 */

import { call, sentence } from "./api.js";
import { copy } from "./clipboard.js";
import { byId, element, icon } from "./dom.js";
import { complain, notify } from "./notices.js";
import { saveOutput } from "./saving.js";
import { change, settings } from "./settings.js";

export const MAC = /Mac|iPad|iPhone/.test(navigator.userAgent);
export const WINDOWS = navigator.userAgent.includes("Windows");
// There Ctrl+Shift+P is a private window, whatever the page wants.
const FIREFOX = !MAC && navigator.userAgent.includes("Firefox");

/**
 * @typedef {object} Hands what the actions need of the page
 * @property {import("./api.js").Me} me
 * @property {() => import("./session.js").Session | undefined} shown
 * @property {() => {label: string, select: () => void, bring?: false | (() => unknown)}[]} tabs `bring`: beside the shown one
 * @property {(wanted?: {profile: string | null, name: string | null}) => void} create open a new session
 * @property {() => unknown} choose the same, with a profile or a name
 * @property {() => unknown} home
 * @property {() => void} leave move the focus out of the terminal
 * @property {(step: 1 | -1) => void} turn select another tab
 * @property {(across: boolean) => void} split another terminal beside the shown one, or below
 * @property {() => import("./layout.js").Layout | undefined} parts the terminals of the tab, where it has several
 * @property {() => unknown} apart the shown one leaves the others of its tab
 * @property {() => unknown} close the shown one
 * @property {() => void} upload
 * @property {() => unknown} download
 * @property {() => unknown} files open, reach or close the list of files
 *
 * @typedef {object} Action
 * @property {string} name as `data-action` of its buttons has it
 * @property {string} title
 * @property {(page: Hands) => unknown} run
 * @property {(page: Hands) => unknown} [enabled] whether it is of use now
 * @property {string} [key] that does it everywhere: Ctrl+Shift, which terminals have always left free
 * @property {string} [mac] another one, on a Mac
 * @property {string} [also] another one that every layout has
 * @property {string} [shows] a key that others see to: the browser, or keys.js
 * @property {string} [icon]
 * @property {number} [menu] its group in the menu of a terminal
 */

// Ways from one to another: what a key that is held down goes on with. All else is done once for a press.
const WAYS = /^(older|newer|previous|next|go-)/;

const terminal = (/** @type {Hands} */ page) => page.shown()?.screen?.terminal;
const connected = (/** @type {Hands} */ page) => page.shown()?.state === "connected";
const marks = (/** @type {Hands} */ page) => page.shown()?.screen?.marks;
/** @param {"txt" | "html"} kind @returns {(page: Hands) => unknown} */
const save = (kind) => (page) => {
  const [session, shown] = [page.shown(), terminal(page)];
  return session && shown && saveOutput(shown, session.label, kind);
};
/** @param {number} by @returns {Pick<Action, "run">} */
const resize = (by) => ({ run: () => change({ fontSize: settings().fontSize + by }) });

/** @param {import("./layout.js").Direction} direction @returns {Pick<Action, "run" | "enabled">} */
const go = (direction) => ({ enabled: (page) => page.parts(), run: (page) => page.parts()?.go(direction) });

/** @type {Action[]} */
const ACTIONS = [
  {
    name: "copy",
    title: "Copy",
    shows: MAC ? "⌘C" : WINDOWS ? "Ctrl+C" : "Ctrl+Shift+C",
    menu: 1,
    enabled: (page) => terminal(page)?.hasSelection(),
    run: async (page) => (await copy(terminal(page)?.getSelection() ?? "")) && notify("Copied."),
  },
  {
    name: "paste",
    title: "Paste",
    shows: MAC ? "⌘V" : WINDOWS ? "Ctrl+V" : "Ctrl+Shift+V",
    menu: 1,
    enabled: terminal,
    run: (page) => page.shown()?.screen?.pasteClipboard(),
  },
  { name: "select-all", title: "Select all", menu: 1, enabled: terminal, run: (page) => terminal(page)?.selectAll() },
  {
    name: "search",
    title: "Search",
    key: "Ctrl+Shift+F",
    mac: "⌘F",
    icon: "search",
    menu: 2,
    enabled: terminal,
    run: (page) => page.shown()?.search(),
  },
  { name: "clear", title: "Clear", mac: "⌘K", menu: 2, enabled: terminal, run: (page) => terminal(page)?.clear() },
  {
    name: "copy-output",
    title: "Copy the last output",
    menu: 3,
    enabled: (page) => marks(page)?.printed,
    run: async (page) => (await copy(marks(page)?.output ?? "")) && notify("Copied."),
  },
  { name: "older", title: "To the prompt above", key: "Ctrl+Shift+↑", menu: 3, enabled: (page) => marks(page)?.any, run: (page) => marks(page)?.go(-1) },
  { name: "newer", title: "To the prompt below", key: "Ctrl+Shift+↓", menu: 3, enabled: (page) => marks(page)?.any, run: (page) => marks(page)?.go(1) },
  { name: "save-text", title: "Save as text", menu: 4, enabled: terminal, run: save("txt") },
  { name: "save-page", title: "Save with colours", menu: 4, enabled: terminal, run: save("html") },
  { name: "create", title: "New terminal", key: "Ctrl+Shift+Enter", icon: "plus", run: (page) => page.create() },
  { name: "choose", title: "New terminal with a profile or a name", icon: "down", run: (page) => page.choose() },
  { name: "previous", title: "Previous tab", key: "Ctrl+Shift+[", also: "Ctrl+Shift+PageUp", enabled: (page) => page.tabs().length, run: (page) => page.turn(-1) },
  { name: "next", title: "Next tab", key: "Ctrl+Shift+]", also: "Ctrl+Shift+PageDown", enabled: (page) => page.tabs().length, run: (page) => page.turn(1) },
  { name: "leave", title: "Leave the terminal", key: "Ctrl+Shift+E", run: (page) => page.leave() },
  { name: "right", title: "Another terminal of this sandbox, beside", key: "Ctrl+Shift+D", icon: "right", enabled: connected, run: (page) => page.split(true) },
  { name: "below", title: "Another terminal of this sandbox, below", key: "Ctrl+Shift+O", icon: "below", enabled: connected, run: (page) => page.split(false) },
  { name: "go-left", title: "To the terminal on the left", key: "Alt+Shift+←", ...go("left") },
  { name: "go-right", title: "To the terminal on the right", key: "Alt+Shift+→", ...go("right") },
  { name: "go-up", title: "To the terminal above", key: "Alt+Shift+↑", ...go("up") },
  { name: "go-down", title: "To the terminal below", key: "Alt+Shift+↓", ...go("down") },
  { name: "zoom", title: "The whole tab for this terminal, or a part", key: "Ctrl+Shift+Z", enabled: (page) => page.parts(), run: (page) => page.parts()?.zoom() },
  { name: "apart", title: "A tab of its own for this terminal", enabled: (page) => page.parts(), run: (page) => page.apart() },
  { name: "close", title: "Close the terminal", key: "Ctrl+Shift+Backspace", enabled: (page) => page.shown(), run: (page) => page.close() },
  { name: "home", title: "Home", icon: "brand", run: (page) => page.home() },
  { name: "upload", title: "Upload files", icon: "upload", enabled: connected, run: (page) => page.upload() },
  { name: "download", title: "Download a file", icon: "download", enabled: connected, run: (page) => page.download() },
  { name: "files", title: "Files", key: "Ctrl+Shift+X", icon: "folder", enabled: (page) => page.shown(), run: (page) => page.files() },
  { name: "full", title: "Full screen, or a window", enabled: () => document.fullscreenEnabled, run: fullScreen },
  { name: "larger", title: "Larger letters", ...resize(1) },
  { name: "smaller", title: "Smaller letters", ...resize(-1) },
  {
    name: "settings",
    title: "Settings",
    icon: "settings",
    run: async (page) => (await import("./preferences.js")).openSettings(page),
  },
  {
    name: "palette",
    title: "All commands",
    key: FIREFOX ? "Ctrl+Shift+Space" : "Ctrl+Shift+P",
    icon: "more",
    menu: 4,
    run: async (page) => (await import("./palette.js")).openPalette(page),
  },
  { name: "logout", title: "Log out", enabled: (page) => page.me.method !== "proxy", run: logOut },
];

/** The menu of a terminal, by group. */
export const MENU = [1, 2, 3, 4].map((group) => ACTIONS.filter(({ menu }) => menu === group));

/** @param {Action} action @returns {string} the key for the person */
export function keyOf({ key, mac, shows }) {
  return (MAC && mac) || key || shows || "";
}

/** @param {Hands} page @returns {Action[]} those that are of use now */
export function enabled(page) {
  return ACTIONS.filter((action) => useful(page, action));
}

/** @param {Hands} page @param {Action} action */
function useful(page, { enabled }) {
  return enabled === undefined || Boolean(enabled(page));
}

/** @type {Record<string, string>} */
const SIGNS = { BracketLeft: "[", BracketRight: "]", ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→" };

/** @type {Record<string, string>} */
const BRACKETS = { "[": "[", "{": "[", "]": "]", "}": "]" };
// Dvorak and bépo have these where others have letters and brackets; no layout that is not Latin has.
const APART = /^["'<>,.:;?+]$/;

/**
 * A letter or bracket is the one that stands on the key, whatever the layout; where that is not Latin, and for all other
 * keys, the place counts.
 *
 * @param {KeyboardEvent} event
 */
export function keyName({ key, code }) {
  if (/^[a-z]$/i.test(key)) return key.toUpperCase();
  if (APART.test(key)) return key;
  // Arabic has brackets where letters are.
  return (!code.startsWith("Key") && BRACKETS[key]) || (SIGNS[code] ?? code.replace("Key", ""));
}

/** @param {KeyboardEvent} event @returns {Action | undefined} */
export function actionOf(event) {
  const { ctrlKey, altKey, shiftKey, metaKey } = event;
  const held = [ctrlKey && "Ctrl+", altKey && "Alt+", shiftKey && "Shift+", metaKey && "⌘"].filter(Boolean).join("");
  const pressed = held + keyName(event);
  return ACTIONS.find(({ key, also, mac }) => [key, also, MAC && mac].includes(pressed));
}

/**
 * @param {Hands} page
 * @param {KeyboardEvent} event
 * @returns {(() => void) | null} what the key is for; null where it is of no use: the program may have one
 */
export function keyed(page, event) {
  const action = actionOf(event);
  // A browser would do something else with the keys of a split. Where there is no sandbox now, the page says so.
  const answered = action?.enabled === connected && page.shown();
  if (!action || !(answered || useful(page, action))) return null;
  const once = !WAYS.test(action.name);
  return () => void ((once && event.repeat) || perform(page, action));
}

/**
 * @param {Hands} page
 * @param {Pick<Action, "run">} action
 */
export async function perform(page, { run }) {
  try {
    await run(page);
  } catch (error) {
    complain(sentence(error));
  }
}

/** @type {Map<HTMLButtonElement, Action>} */
const bound = new Map();

/** The buttons of the header, and others, that have `data-action`; those without words get an icon. @param {Hands} page */
export function bindButtons(page) {
  for (const action of ACTIONS) {
    /** @type {NodeListOf<HTMLButtonElement>} */
    const buttons = document.querySelectorAll(`button[data-action="${action.name}"]`);
    for (const button of buttons) {
      bound.set(button, action);
      button.addEventListener("click", () => void perform(page, action));
      if (button.textContent?.trim()) continue;
      const key = keyOf(action);
      button.append(icon(action.icon ?? ""));
      button.title = key ? `${action.title} (${key})` : action.title;
      button.setAttribute("aria-label", action.title);
    }
  }
}

/** What is of use may be others now. @param {Hands} page */
export function refreshButtons(page) {
  for (const [button, action] of bound) button.disabled = !useful(page, action);
}

/** The keys, with words. @param {HTMLElement} list */
export function fillKeys(list) {
  const keys = ACTIONS.map((action) => [keyOf(action), action.title]).filter(([key]) => key);
  const rows = [...keys, ["Delete", "Close the tab that has the focus"], ["Shift+Enter", "A new line, where the program takes one"]];
  list.replaceChildren(...rows.flatMap(([key, words]) => [element("dt", {}, key), element("dd", {}, words)]));
}

/** The right button in a terminal. A program that wants the mouse gets it; with Shift it is the person's. @param {Hands} page */
export function bindMenu(page) {
  byId("panels").addEventListener("contextmenu", async (event) => {
    const { rightClick } = settings();
    const inside = event.target instanceof Element && event.target.closest(".terminal");
    // Fingers have their own: touch.js.
    const touched = event instanceof PointerEvent && event.pointerType === "touch";
    const shown = terminal(page);
    if (!inside || !shown || touched || rightClick === "browser") return;
    event.preventDefault();
    if (shown.modes.mouseTrackingMode !== "none" && !event.shiftKey) return;
    const link = shown.element?.dataset["link"] ?? "";
    if (rightClick === "paste" && !link) void page.shown()?.screen?.pasteClipboard();
    else await perform(page, { run: async () => (await import("./menu.js")).openMenu(page, event, link) });
  });
}

/** The browser's own keys, such as Ctrl+W, are the program's there, where the browser lets a page have them. */
async function fullScreen() {
  if (document.fullscreenElement) return document.exitFullscreen();
  await document.documentElement.requestFullscreen();
  await /** @type {any} */ (navigator).keyboard?.lock?.();
}

/** @returns {Promise<void>} */
export async function logOut() {
  await call("logout", "POST", {}).finally(() => location.reload());
}
