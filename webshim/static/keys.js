/** Keys that are the page's own, not the program's. All have Ctrl+Shift, which terminals have always left free. */

import { copy } from "./clipboard.js";
import { settings } from "./settings.js";

export const MAC = /Mac|iPad|iPhone/.test(navigator.userAgent);
const WINDOWS = navigator.userAgent.includes("Windows");

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
  terminal.attachCustomKeyEventHandler((event) => {
    if (event.type !== "keydown") return true;
    if (event.key === "Alt") terminal.options.macOptionIsMeta = isMeta(event.location);
    if (isPasteKey(event)) return false;
    const act = terminalKey(event, terminal) ?? pageKey(event, actions);
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
 * @param {KeyboardEvent} event
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @returns {(() => void) | null} what the key does; null when it is the program's
 */
function terminalKey({ ctrlKey, shiftKey, altKey, metaKey, code }, terminal) {
  if (altKey || metaKey || !ctrlKey || code !== "KeyC") return null;
  if (shiftKey) return () => terminal.hasSelection() && void copy(terminal.getSelection());
  // Windows only: there Ctrl+C copies what is selected. The selection goes, so that a second one interrupts.
  return WINDOWS && terminal.hasSelection() ? () => take(terminal) : null;
}

/**
 * @param {KeyboardEvent} event
 * @param {Actions} actions
 * @returns {(() => void) | null}
 */
function pageKey({ ctrlKey, shiftKey, altKey, metaKey, code }, actions) {
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
  return (ctrlKey && shiftKey && !altKey && !metaKey && code === "KeyV") || (shiftKey && !ctrlKey && code === "Insert");
}

/** @param {import("./vendor/xterm.js").Terminal} terminal */
function take(terminal) {
  void copy(terminal.getSelection());
  terminal.clearSelection();
}
