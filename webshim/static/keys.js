/**
 * Keys that are the page's own, not the program's: Ctrl+Shift, which terminals have always left free, and ⌘ on a Mac. And
 * keys of habit on each system, as the program knows them.
 */

import { lineBreak } from "./agentinput.js";
import { copy } from "./clipboard.js";
import { notify } from "./notices.js";
import { settings } from "./settings.js";

export const MAC = /Mac|iPad|iPhone/.test(navigator.userAgent);
const WINDOWS = navigator.userAgent.includes("Windows");

/** With Ctrl: the word before the cursor, the one after it. @type {Record<string, string>} */
const WORD_KEYS = { Backspace: "\x17", Delete: "\x1bd" };
/** With ⌘: the line before the cursor, its beginning, its end. @type {Record<string, string>} */
const LINE_KEYS = { Backspace: "\x15", ArrowLeft: "\x01", ArrowRight: "\x05" };

/** The keys for the person, as pairs of keys and words. */
export const HELP = [
  MAC ? ["⌘C, ⌘V", "copy, paste"] : [WINDOWS ? "Ctrl+C, V" : "Ctrl+Shift+C, V", "copy, paste"],
  [MAC ? "⌘F" : "Ctrl+Shift+F", "search"],
  ...(MAC ? [["⌘K", "clear"]] : []),
  ["Shift+Enter", "a new line, where the program takes one"],
  ["Ctrl+Shift+Enter", "new terminal"],
  ["Ctrl+Shift+[, ]", "other tab"],
  ["Ctrl+Shift+E", "leave the terminal"],
  ["Delete", "on a tab: close it"],
];

/**
 * @typedef {object} Actions
 * @property {() => void} search
 * @property {() => void} leave move the focus out of the terminal
 * @property {() => void} create open a new session
 * @property {(step: 1 | -1) => void} turn select another tab
 */

/**
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @param {Actions} actions
 */
export function takeKeys(terminal, actions) {
  const newLine = lineBreak(terminal);
  terminal.attachCustomKeyEventHandler((event) => {
    if (event.type !== "keydown") return true;
    if (event.key === "Alt") terminal.options.macOptionIsMeta = isMeta(event.location);
    if (isPasteKey(event)) return false;
    const typed = habit(event, terminal, newLine);
    const act = typed ? () => terminal.input(typed, true) : (terminalKey(event, terminal) ?? pageKey(event, actions));
    if (act === null) return true;
    event.preventDefault();
    act();
    return false;
  });
}

/**
 * The page's keys where no terminal has the focus. In a dialog, Enter and the like are the dialog's.
 *
 * @param {Actions} actions
 */
export function takePageKeys(actions) {
  document.addEventListener("keydown", (event) => {
    const act = event.defaultPrevented || document.querySelector("dialog[open]") ? null : pageKey(event, actions);
    if (act === null) return;
    event.preventDefault();
    act();
  });
}

/** @param {number} location of the Option key that went down */
function isMeta(location) {
  const { option } = settings();
  return option === "both" || option === (location === KeyboardEvent.DOM_KEY_LOCATION_RIGHT ? "right" : "left");
}

/**
 * What a key of habit is for the program; null for all others.
 *
 * @param {KeyboardEvent} event
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @param {() => string} newLine
 * @returns {string | null}
 */
function habit({ ctrlKey, shiftKey, altKey, metaKey, code, isComposing }, terminal, newLine) {
  if (altKey || isComposing) return null;
  if (code === "Enter" && shiftKey && !ctrlKey && !metaKey) return newLine();
  // A program that draws the whole screen has its own keys.
  if (shiftKey || terminal.buffer.active.type === "alternate") return null;
  if (ctrlKey && !metaKey) return WORD_KEYS[code] ?? null;
  return MAC && metaKey && !ctrlKey ? (LINE_KEYS[code] ?? null) : null;
}

/**
 * @param {KeyboardEvent} event
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @returns {(() => void) | null} what the key does; null when it is the program's
 */
function terminalKey({ ctrlKey, shiftKey, altKey, metaKey, code }, terminal) {
  if (MAC && metaKey && code === "KeyK") return () => terminal.clear();
  if (altKey || metaKey || !ctrlKey) return null;
  const copySelected = () => terminal.hasSelection() && void copy(terminal.getSelection());
  if (code === "Insert" && terminal.hasSelection()) return copySelected;
  if (code !== "KeyC") return null;
  if (shiftKey) return copySelected;
  // Windows only: there Ctrl+C copies what is selected. The selection goes, so that a second one interrupts.
  return WINDOWS && terminal.hasSelection() ? () => take(terminal) : null;
}

/**
 * @param {KeyboardEvent} event
 * @param {Actions} actions
 * @returns {(() => void) | null}
 */
function pageKey({ ctrlKey, shiftKey, altKey, metaKey, code }, actions) {
  if (MAC && metaKey && !ctrlKey && !altKey && !shiftKey && code === "KeyF") return actions.search;
  if (altKey || metaKey || !ctrlKey || !shiftKey) return null;
  switch (code) {
    case "KeyF":
      return actions.search;
    case "KeyE":
      return actions.leave;
    case "Enter":
      return actions.create;
    case "BracketLeft":
      return () => actions.turn(-1);
    case "BracketRight":
      return () => actions.turn(1);
    default:
      return null;
  }
}

/**
 * Pasting by key is the browser's own: it needs no permission. The key must only not reach the program.
 *
 * @param {KeyboardEvent} event
 */
function isPasteKey({ ctrlKey, shiftKey, altKey, metaKey, code }) {
  if (altKey || metaKey) return false;
  // On Windows Ctrl+V pastes as everywhere else there; ^V has other keys in the programs that want it.
  if (code === "KeyV") return ctrlKey && (WINDOWS || shiftKey);
  return shiftKey && !ctrlKey && code === "Insert";
}

/** @param {import("./vendor/xterm.js").Terminal} terminal */
function take(terminal) {
  void copy(terminal.getSelection()).then((copied) => copied && notify("Copied."));
  terminal.clearSelection();
}
