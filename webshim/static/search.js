/** The search bar over a terminal: Ctrl+Shift+F, Enter and Shift+Enter, Escape. */

import { SearchAddon } from "./vendor/addon-search.js";
import { element, iconButton } from "./dom.js";

const LOOKS = {
  decorations: {
    matchBackground: "#6b5a1e",
    matchOverviewRuler: "#b8982f",
    activeMatchBackground: "#c77f1a",
    activeMatchColorOverviewRuler: "#ffa940",
  },
};

export class SearchBar {
  /**
   * @param {HTMLElement} panel
   * @param {import("./terminal.js").Screen} screen
   */
  constructor(panel, screen) {
    this._screen = screen;
    this._addon = new SearchAddon();
    screen.terminal.loadAddon(this._addon);
    this._field = element("input", {
      type: "search",
      "aria-label": "Search in the output",
      placeholder: "Search",
      spellcheck: false,
      on: {
        input: () => this._find(true, { incremental: true }),
        keydown: (/** @type {KeyboardEvent} */ event) => this._key(event),
      },
    });
    this._count = element("span", { className: "count", role: "status" });
    this._addon.onDidChangeResults(({ resultIndex, resultCount }) => this._tell(resultIndex, resultCount));
    this._bar = element(
      "div",
      { className: "search", role: "search", hidden: true },
      this._field,
      this._count,
      iconButton("Previous match (Shift+Enter)", "up", () => this._find(false)),
      iconButton("Next match (Enter)", "down", () => this._find(true)),
      iconButton("Close the search (Escape)", "close", () => this.close()),
    );
    panel.append(this._bar);
  }

  open() {
    this._bar.hidden = false;
    const selected = this._screen.terminal.getSelection();
    if (selected && !selected.includes("\n")) this._field.value = selected;
    this._field.focus();
    this._field.select();
    if (this._field.value) this._find(true, { incremental: true });
  }

  close() {
    this._bar.hidden = true;
    this._addon.clearDecorations();
    this._screen.terminal.clearSelection();
    this._screen.focus();
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    if (event.key === "Escape") this.close();
    else if (event.key === "Enter") this._find(!event.shiftKey);
    else return;
    event.preventDefault();
  }

  /**
   * @param {boolean} forward
   * @param {{incremental?: boolean}} [more]
   */
  _find(forward, more = {}) {
    const options = { ...LOOKS, ...more };
    if (!this._field.value) {
      this._addon.clearDecorations();
      this._count.textContent = "";
    } else if (forward) {
      this._addon.findNext(this._field.value, options);
    } else {
      this._addon.findPrevious(this._field.value, options);
    }
  }

  /**
   * @param {number} index counted from 0; -1 when there are more than the add-on counts
   * @param {number} count
   */
  _tell(index, count) {
    if (!this._field.value) this._count.textContent = "";
    else if (count === 0) this._count.textContent = "none";
    else this._count.textContent = index < 0 ? `${count}+` : `${index + 1} of ${count}`;
  }
}
