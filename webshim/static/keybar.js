/** Two rows of keys that a phone's keyboard has not, and two more behind them. Ctrl and Alt hold for the next key. */

import { byId, element } from "./dom.js";

const ESCAPE = "\x1b";
// As on a keyboard: what is held down comes again after HOLD, then each REPEAT.
const HOLD_MS = 400;
const REPEAT_MS = 70;
const SIGNS = ["|", "/", "-", "~"];

export class KeyBar {
  /** @param {() => import("./terminal.js").Screen | null} current */
  constructor(current) {
    this._current = current;
    this._held = { Ctrl: holdable("Ctrl"), Alt: holdable("Alt") };
    const more = holdable("…", "More keys");
    const bar = byId("keybar");
    const key = (/** @type {string} */ sign, /** @type {string} */ name, /** @type {string} */ sent) =>
      button(sign, name, () => this._send(sent));
    const held = (/** @type {string} */ sign, /** @type {string} */ name, /** @type {string} */ sent) =>
      repeating(sign, name, () => this._send(sent));
    const cursor = (/** @type {string} */ sign, /** @type {string} */ name, /** @type {string} */ letter) =>
      repeating(sign, name, () => this._move(letter));
    const first = [
      key("Esc", "Esc", ESCAPE), key("Tab", "Tab", "\t"), key("⇧Tab", "Shift Tab", `${ESCAPE}[Z`),
      this._held.Ctrl, this._held.Alt, button("Paste", "Paste", () => void this._current()?.pasteClipboard()), cursor("↑", "Up", "A"),
      key("^C", "Control C", "\x03"), ...SIGNS.map((sign) => key(sign, sign, sign)),
      cursor("←", "Left", "D"), cursor("↓", "Down", "B"), cursor("→", "Right", "C"),
    ];
    const others = [
      held("PgUp", "PgUp", `${ESCAPE}[5~`), cursor("Home", "Home", "H"), held("Del", "Del", `${ESCAPE}[3~`),
      ...["P", "Q", "R", "S"].map((letter, index) => key(`F${index + 1}`, `F${index + 1}`, `${ESCAPE}O${letter}`)),
      held("PgDn", "PgDn", `${ESCAPE}[6~`), cursor("End", "End", "F"),
      ...[15, 17, 18, 19, 20, 21].map((code, index) => key(`F${index + 5}`, `F${index + 5}`, `${ESCAPE}[${code}~`)),
    ];
    for (const one of others) one.className = "other";
    more.classList.add("more");
    more.addEventListener("click", () => bar.classList.toggle("others", isHeld(more)));
    bar.append(...first, more, ...others);
    // A press must not take the focus: the phone's keyboard would go.
    bar.addEventListener("pointerdown", (event) => event.preventDefault());
  }

  /**
   * What was typed, with the held keys; they are let go by it.
   *
   * @param {Uint8Array<ArrayBuffer>} typed
   * @returns {Uint8Array<ArrayBuffer>}
   */
  apply(typed) {
    const control = letGo(this._held.Ctrl);
    const alt = letGo(this._held.Alt);
    let bytes = typed;
    if (control && bytes.length === 1 && bytes[0] >= 0x3f) bytes = Uint8Array.of(bytes[0] & 0x1f);
    return alt ? Uint8Array.of(0x1b, ...bytes) : bytes;
  }

  /** @param {string} text */
  _send(text) {
    this._current()?.terminal.input(text, true);
  }

  /** @param {string} letter of an arrow, Home or End */
  _move(letter) {
    const application = this._current()?.terminal.modes.applicationCursorKeysMode;
    const control = letGo(this._held.Ctrl);
    this._send(control ? `${ESCAPE}[1;5${letter}` : ESCAPE + (application ? "O" : "[") + letter);
  }
}

/**
 * @param {string} sign
 * @param {string} name
 * @param {() => void} press
 */
function button(sign, name, press) {
  return element("button", { type: "button", "aria-label": name, on: { click: press } }, sign);
}

/**
 * A key that comes again while it is held.
 *
 * @param {string} sign
 * @param {string} name
 * @param {() => void} press
 */
function repeating(sign, name, press) {
  let timer = 0;
  const stop = () => clearTimeout(timer);
  const again = (/** @type {number} */ after) => {
    stop();
    timer = setTimeout(() => (press(), again(REPEAT_MS)), after);
  };
  // A click that no pointer has made: of a keyboard, or of a screen reader.
  const made = button(sign, name, () => {});
  made.addEventListener("click", ({ detail }) => detail === 0 && press());
  made.addEventListener("pointerdown", ({ button }) => button === 0 && (press(), again(HOLD_MS)));
  for (const end of ["pointerup", "pointercancel", "pointerleave", "lostpointercapture"]) made.addEventListener(end, stop);
  window.addEventListener("blur", stop);
  document.addEventListener("visibilitychange", stop);
  return made;
}

/**
 * @param {string} sign
 * @param {string} [name]
 */
function holdable(sign, name = sign) {
  const made = element("button", { type: "button", "aria-label": name, "aria-pressed": "false" }, sign);
  made.addEventListener("click", () => made.setAttribute("aria-pressed", String(!isHeld(made))));
  return made;
}

/** @param {HTMLElement} button */
function isHeld(button) {
  return button.getAttribute("aria-pressed") === "true";
}

/** @param {HTMLElement} button */
function letGo(button) {
  const held = isHeld(button);
  button.setAttribute("aria-pressed", "false");
  return held;
}

/** Keeps the page as high as what the phone's keyboard leaves of it. */
export function followViewport() {
  const viewport = window.visualViewport;
  if (!viewport) return;
  const follow = () => {
    document.documentElement.style.setProperty("--height", `${viewport.height}px`);
    window.scrollTo(0, 0);
  };
  viewport.addEventListener("resize", follow);
  follow();
}
