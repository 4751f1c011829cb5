/** Which keys are the page's own, not the program's, and keys of habit on each system, as the program knows them. */

import { keyName, MAC, WINDOWS } from "./actions.js";
import { lineBreak } from "./agentinput.js";
import { copy } from "./clipboard.js";
import { notify } from "./notices.js";
import { settings } from "./settings.js";

/** With Ctrl: the word before the cursor, the one after it. @type {Record<string, string>} */
const WORD_KEYS = { Backspace: "\x17", Delete: "\x1bd" };
/** With ⌘: the line before the cursor, its beginning, its end. @type {Record<string, string>} */
const LINE_KEYS = { Backspace: "\x15", ArrowLeft: "\x01", ArrowRight: "\x05" };

/**
 * @typedef {(event: KeyboardEvent) => (() => void) | null} Page what a key of the page is for; null: it is the program's
 *
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @param {Page} page
 */
export function takeKeys(terminal, page) {
  const newLine = lineBreak(terminal);
  terminal.attachCustomKeyEventHandler((event) => {
    if (event.type !== "keydown") return true;
    if (event.key === "Alt") terminal.options.macOptionIsMeta = isMeta(event.location);
    if (isPasteKey(event)) return false;
    const typed = habit(event, terminal, newLine);
    const act = typed ? () => terminal.input(typed, true) : (terminalKey(event, terminal) ?? page(event));
    if (act === null) return true;
    event.preventDefault();
    act();
    return false;
  });
}

/**
 * The page's keys where no terminal has the focus. In a dialog, Enter and the like are the dialog's.
 *
 * @param {Page} page
 */
export function takePageKeys(page) {
  document.addEventListener("keydown", (event) => {
    const act = event.defaultPrevented || document.querySelector("dialog[open]") ? null : page(event);
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
function terminalKey(event, terminal) {
  const { ctrlKey, shiftKey, altKey, metaKey, code } = event;
  if (altKey || metaKey || !ctrlKey) return null;
  const copySelected = () => terminal.hasSelection() && void copy(terminal.getSelection());
  if (code === "Insert" && terminal.hasSelection()) return copySelected;
  if (keyName(event) !== "C") return null;
  if (shiftKey) return copySelected;
  // Windows only: there Ctrl+C copies what is selected. The selection goes, so that a second one interrupts.
  return WINDOWS && terminal.hasSelection() ? () => take(terminal) : null;
}

/**
 * Pasting by key is the browser's own: it needs no permission. The key must only not reach the program.
 *
 * @param {KeyboardEvent} event
 */
function isPasteKey(event) {
  const { ctrlKey, shiftKey, altKey, metaKey, code } = event;
  if (altKey || metaKey) return false;
  // On Windows Ctrl+V pastes as everywhere else there; ^V has other keys in the programs that want it.
  if (keyName(event) === "V") return ctrlKey && (WINDOWS || shiftKey);
  return shiftKey && !ctrlKey && code === "Insert";
}

/** @param {import("./vendor/xterm.js").Terminal} terminal */
function take(terminal) {
  void copy(terminal.getSelection()).then((copied) => copied && notify("Copied."));
  terminal.clearSelection();
}
