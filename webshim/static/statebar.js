/** The bar at the foot of a panel: says what a session is at, when it is not simply there, and what can be done. */

import { announce, element } from "./dom.js";

// A state that passes sooner is not worth a flash.
const PATIENCE_MS = 500;

/**
 * @typedef {object} Choice
 * @property {string} label
 * @property {() => void} act
 */

export class StateBar {
  /**
   * @param {HTMLElement} panel
   * @param {() => void} chosen a button was pressed; it is gone, and so is the focus it had
   */
  constructor(panel, chosen) {
    this._panel = panel;
    this._chosen = chosen;
    /** @type {HTMLElement | null} */
    this._bar = null;
    this._warning = element("span");
    this._timer = 0;
  }

  /**
   * @param {string} text
   * @param {Choice[]} choices the first one is the likely one
   * @param {{dim?: boolean, soon?: boolean, seconds?: number}} [how] `soon`: only if nothing replaces it in the
   *   meantime; `seconds`: counted down at the end of the text
   */
  show(text, choices, { dim = true, soon = false, seconds = 0 } = {}) {
    clearTimeout(this._timer);
    if (soon && this._bar === null) {
      this._timer = setTimeout(() => this._show(text, choices, dim), PATIENCE_MS);
    } else {
      this._show(text, choices, dim);
      if (seconds) this._countDown(text, seconds);
    }
  }

  /**
   * More words in the bar that is shown, and a sign that catches the eye.
   *
   * @param {string} text
   */
  warn(text) {
    if (this._bar === null) return;
    if (this._warning.textContent !== text) announce(text);
    this._warning.textContent = text;
    this._bar.classList.remove("pulses");
    requestAnimationFrame(() => this._bar?.classList.add("pulses"));
  }

  hide() {
    clearTimeout(this._timer);
    this._bar?.remove();
    this._bar = null;
    announce("");
    this._panel.classList.remove("away");
  }

  /**
   * @param {string} text
   * @param {number} seconds
   */
  _countDown(text, seconds) {
    const words = this._bar?.querySelector(".text");
    if (!words) return;
    words.textContent = `${text} ${seconds} s.`;
    if (seconds > 1) this._timer = setTimeout(() => this._countDown(text, seconds - 1), 1000);
  }

  /** @param {() => void} act */
  _press(act) {
    act();
    this._chosen();
  }

  /**
   * @param {string} text
   * @param {Choice[]} choices
   * @param {boolean} dim
   */
  _show(text, choices, dim) {
    this._bar?.remove();
    this._warning = element("span", { className: "warning" });
    const buttons = choices.map(({ label, act }, index) =>
      element("button", { type: "button", className: index ? "button" : "button primary", on: { click: () => this._press(act) } }, label),
    );
    this._bar = element(
      "div",
      { className: "state" },
      element("span", { className: "text", textContent: text }),
      this._warning,
      element("span", { className: "buttons" }, ...buttons),
    );
    this._panel.append(this._bar);
    this._panel.classList.toggle("away", dim);
    announce(text);
  }
}
