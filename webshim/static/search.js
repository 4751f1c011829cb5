/** The search bar above a terminal, from the newest line up: Enter to older matches, Shift+Enter to newer ones, Escape back. */

import { soon } from "./api.js";
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
    /** Fetched when it is first wanted. @type {import("./vendor/addon-search.js").SearchAddon | undefined} */
    this._addon = undefined;
    this._field = element("input", {
      type: "search",
      "aria-label": "Search in the output",
      placeholder: "Search",
      spellcheck: false,
      on: { input: () => this._findNewest() },
    });
    /** @type {Record<string, HTMLButtonElement>} */
    this._toggles = {
      caseSensitive: this._toggle("Aa", "Upper and lower case count"),
      wholeWord: this._toggle("ab|", "Whole words"),
      regex: this._toggle(".*", "Regular expression"),
    };
    /** Where the terminal was scrolled to, null for the bottom. @type {number | null} */
    this._before = null;
    this._count = element("span", { className: "count", role: "status" });
    this._bar = element(
      "div",
      { className: "search", role: "search", hidden: true },
      this._field,
      ...Object.values(this._toggles),
      this._count,
      iconButton("Older match (Enter)", "up", () => this._find(false)),
      iconButton("Newer match (Shift+Enter)", "down", () => this._find(true)),
      iconButton("Close the search (Escape)", "close", () => this.close()),
    );
    this._bar.addEventListener("keydown", (event) => this._key(event));
    this._bar.addEventListener("focusout", ({ relatedTarget }) => this._inside(relatedTarget) || this._rest());
    this._bar.addEventListener("focusin", ({ relatedTarget }) => this._inside(relatedTarget) || this._find(false));
    panel.append(this._bar);
  }

  /** @param {EventTarget | null} target */
  _inside(target) {
    return target instanceof Node && this._bar.contains(target);
  }

  /**
   * The person does something else: what they select there is theirs, whatever is printed. Private of add-on 0.16, which
   * would select its match again after each output; the version is pinned, and a test shows a change.
   */
  _rest() {
    /** @type {any} */ (this._addon)?._state.clearCachedTerm();
  }

  async _load() {
    const part = import("./vendor/addon-search.js");
    if ((await soon(part)) === null) this._count.textContent = "did not load";
    const { SearchAddon } = (await part.catch(() => null)) ?? {};
    if (this._addon || !SearchAddon) return;
    this._count.textContent = "";
    this._addon = new SearchAddon();
    this._screen.terminal.loadAddon(this._addon);
    this._addon.onDidChangeResults(({ resultIndex, resultCount }) => this._report(resultIndex, resultCount));
    if (!this._bar.hidden) this._find(false);
  }

  open() {
    const { terminal } = this._screen;
    const { viewportY, baseY } = terminal.buffer.active;
    if (this._bar.hidden) this._before = viewportY === baseY ? null : viewportY;
    this._bar.hidden = false;
    this._screen.fit(); // now, not with the next frame: what is found is scrolled to
    this._screen.highlight(LOOKS.decorations.activeMatchBackground);
    const selected = terminal.getSelection();
    if (selected && !selected.includes("\n")) this._field.value = selected;
    this._field.focus();
    this._field.select();
    if (this._addon) this._findNewest();
    else void this._load();
  }

  close() {
    const { terminal } = this._screen;
    // First: with another size the add-on would search again.
    this._addon?.clearDecorations();
    terminal.clearSelection();
    this._bar.hidden = true;
    this._screen.fit();
    this._screen.highlight(null);
    if (this._before === null) terminal.scrollToBottom();
    else terminal.scrollToLine(this._before);
    this._screen.focus();
  }

  /**
   * @param {string} sign
   * @param {string} label
   */
  _toggle(sign, label) {
    const made = element("button", { type: "button", className: "toggle", title: label, "aria-label": `${label} ${sign}`, "aria-pressed": "false" }, sign);
    made.addEventListener("click", () => {
      made.setAttribute("aria-pressed", String(made.getAttribute("aria-pressed") !== "true"));
      // The add-on keeps what it found for the same words otherwise.
      this._addon?.clearDecorations();
      this._findNewest();
    });
    return made;
  }

  /** The bottom is what one searches first: it came last. */
  _findNewest() {
    this._screen.terminal.clearSelection();
    this._find(false);
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    if (event.key === "Escape") this.close();
    else if (event.key === "F3" || (event.key === "Enter" && event.target === this._field)) this._find(event.shiftKey);
    else return;
    event.preventDefault();
  }

  /** @param {boolean} newer */
  _find(newer) {
    const pressed = Object.entries(this._toggles).map(([name, toggle]) => [name, toggle.getAttribute("aria-pressed") === "true"]);
    const options = { ...LOOKS, ...Object.fromEntries(pressed) };
    if (!this._addon) return;
    if (!this._field.value) {
      this._addon.clearDecorations();
      this._count.textContent = "";
      return;
    }
    try {
      if (newer) this._addon.findNext(this._field.value, options);
      else this._addon.findPrevious(this._field.value, options);
    } catch {
      this._count.textContent = "no pattern";
    }
  }

  /**
   * @param {number} index counted from 0; -1 when there are more than the add-on counts
   * @param {number} count
   */
  _report(index, count) {
    if (!this._field.value) this._count.textContent = "";
    else if (count === 0) this._count.textContent = "none";
    else this._count.textContent = index < 0 ? `${count}+` : `${index + 1} of ${count}`;
  }
}
