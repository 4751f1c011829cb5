/** Keys that are the page's own, not the program's. All have Ctrl+Shift, which terminals have always left free. */

import { copy } from "./clipboard.js";

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
    if (isPasteKey(event)) return false;
    const act = pageKey(event, terminal, actions);
    if (act === null) return true;
    event.preventDefault();
    act();
    return false;
  });
}

/**
 * @param {KeyboardEvent} event
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @param {Actions} actions
 * @returns {(() => void) | null} what the key does; null when it is the program's
 */
function pageKey(event, terminal, actions) {
  const { ctrlKey, shiftKey, altKey, metaKey, code } = event;
  if (altKey || metaKey || !ctrlKey) return null;
  if (!shiftKey) {
    // Windows only: there Ctrl+C copies what is selected. The selection goes, so that a second one interrupts.
    return WINDOWS && code === "KeyC" && terminal.hasSelection() ? () => take(terminal) : null;
  }
  switch (code) {
    case "KeyC":
      return () => terminal.hasSelection() && void copy(terminal.getSelection());
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
