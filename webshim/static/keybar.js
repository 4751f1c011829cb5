/** The row of keys that a phone's keyboard has not. Ctrl and Alt hold for the next key. */

import { harmless, pasted } from "./clipboard.js";
import { byId, element } from "./dom.js";
import { notify } from "./notices.js";

const ESCAPE = "\x1b";

const SIGNS = ["|", "/", "-", "~"];
/** @type {Record<string, {label: string, letter: string}>} */
const ARROWS = {
  "←": { label: "Left", letter: "D" },
  "↓": { label: "Down", letter: "B" },
  "↑": { label: "Up", letter: "A" },
  "→": { label: "Right", letter: "C" },
};

export class KeyBar {
  /** @param {() => import("./terminal.js").Screen | null} current */
  constructor(current) {
    this._current = current;
    this._held = { Ctrl: holdable("Ctrl"), Alt: holdable("Alt") };
    const bar = byId("keybar");
    const button = (/** @type {string} */ label, /** @type {() => void} */ press, aria = label) =>
      element("button", { type: "button", "aria-label": aria, on: { click: press } }, label);
    bar.append(
      button("Esc", () => this._send(ESCAPE), "Escape"),
      button("Tab", () => this._send("\t")),
      this._held.Ctrl,
      this._held.Alt,
      ...Object.entries(ARROWS).map(([sign, { label, letter }]) => button(sign, () => this._arrow(letter), label)),
      ...SIGNS.map((sign) => button(sign, () => this._send(sign))),
      button("Paste", () => void this._paste()),
    );
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

  /** @param {string} letter */
  _arrow(letter) {
    const application = this._current()?.terminal.modes.applicationCursorKeysMode;
    const control = letGo(this._held.Ctrl);
    this._send(control ? `${ESCAPE}[1;5${letter}` : ESCAPE + (application ? "O" : "[") + letter);
  }

  async _paste() {
    const text = await pasted();
    if (text === null) notify("This browser does not let the page read the clipboard; paste with a long press.");
    else this._current()?.terminal.paste(harmless(text));
  }
}

/** @param {string} label */
function holdable(label) {
  const made = element("button", { type: "button", "aria-pressed": "false" }, label);
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
