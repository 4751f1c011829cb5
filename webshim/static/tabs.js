/** The row of tabs (the ARIA pattern: one of them is in the tab order, arrow keys go along, Delete closes). */

import { byId, element, icon, iconButton } from "./dom.js";

// Of these the sign says enough.
const QUIET_STATES = ["idle", "connected"];

/**
 * @typedef {object} Tab
 * @property {HTMLElement} holder
 * @property {HTMLElement} button
 * @property {HTMLElement} label
 * @property {HTMLElement} word what it is at, where that is not the usual
 * @property {HTMLElement} panel
 * @property {Looks} looks
 *
 * @typedef {object} Looks
 * @property {string} label
 * @property {string} state
 * @property {string} spoken the state in words
 * @property {string} clock the time to an end that is near
 * @property {boolean} waits whether it wants to be noticed
 * @property {number | null} progress in percent
 */

export class Tabs {
  /**
   * @param {(panel: HTMLElement | null) => void} selected called whenever another panel is shown; null when none is left
   * @param {(panel: HTMLElement) => void} closing a person wants to close this one
   */
  constructor(selected, closing) {
    this._list = byId("tabs");
    this._selected = selected;
    this._closing = closing;
    /** @type {Tab[]} */
    this._tabs = [];
    this._list.addEventListener("keydown", (event) => this._key(event));
    // A wheel turns in one direction; the row goes in the other.
    this._list.addEventListener("wheel", ({ deltaX, deltaY }) => void (deltaX || (this._list.scrollLeft += deltaY)), { passive: true });
    this._all = byId("all-tabs");
    this._all.append(icon("list"));
    byId("tab-list").addEventListener("beforetoggle", (event) => {
      if (/** @type {ToggleEvent} */ (event).newState === "open") this._fillAll();
    });
    this._measuring = 0;
    new ResizeObserver(() => this._measureSoon()).observe(this._list);
  }

  /** @type {HTMLElement | null} */
  get shown() {
    return this._tabs.find(({ panel }) => !panel.hidden)?.panel ?? null;
  }

  /**
   * A tab for the panel, at the end of the row; not selected yet.
   *
   * @param {HTMLElement} panel it has an id
   */
  add(panel) {
    const label = element("span", { className: "label" });
    const word = element("span", { className: "word" });
    const button = element(
      "button",
      { type: "button", role: "tab", id: `tab-${panel.id}`, "aria-controls": panel.id, "aria-selected": "false", tabIndex: -1 },
      element("span", { className: "dot" }),
      label,
      " ", // a word of its own for who reads it
      word,
    );
    // For the pointer only: the keyboard has Delete on the tab itself, and a tab holds nothing that can be focused.
    const close = element(
      "span",
      { className: "close", "aria-hidden": "true", title: "Close", on: { click: () => this._closing(panel) } },
      icon("close"),
    );
    const holder = element("div", { className: "tab", role: "presentation" }, button, close);
    button.addEventListener("click", () => this.select(panel));
    holder.addEventListener("auxclick", (event) => event.button === 1 && this._closing(panel));
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", button.id);
    panel.hidden = true;
    this._list.append(holder);
    this._tabs.push({ holder, button, label, word, panel, looks: { label: "", state: "", spoken: "", clock: "", waits: false, progress: null } });
    this._measureSoon();
  }

  /** @param {HTMLElement | null} panel null: none of them */
  select(panel) {
    for (const tab of this._tabs) {
      const chosen = tab.panel === panel;
      tab.panel.hidden = !chosen;
      tab.button.setAttribute("aria-selected", String(chosen));
      tab.button.tabIndex = chosen || (panel === null && tab === this._tabs[0]) ? 0 : -1;
      if (!chosen) continue;
      tab.holder.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    this._describeAll();
    this._selected(panel);
  }

  /** @param {HTMLElement} panel */
  remove(panel) {
    const index = this._tabs.findIndex((tab) => tab.panel === panel);
    const [gone] = this._tabs.splice(index, 1);
    gone.holder.remove();
    panel.remove();
    this._measureSoon();
    if (gone.panel.hidden) return;
    // What another window shows is shown here only when a person wants it.
    const next = [...this._tabs.slice(index), ...this._tabs.slice(0, index).reverse()].find(({ looks }) => looks.state !== "elsewhere");
    this.select(next?.panel ?? null);
  }

  /**
   * @param {HTMLElement} panel
   * @param {Looks} looks
   */
  describe(panel, looks) {
    const { label, state, progress } = looks;
    const tab = this._find(panel);
    if (JSON.stringify(tab.looks) === JSON.stringify(looks)) return;
    tab.looks = looks;
    const more = [looks.waits ? "calls for attention" : "", progress === null ? "" : `${progress} % done`];
    const spoken = [looks.spoken, ...more].filter(Boolean).join(", ");
    tab.label.textContent = label;
    tab.word.textContent = QUIET_STATES.includes(state) ? looks.clock : state;
    tab.button.title = `${label}: ${spoken}`;
    tab.button.setAttribute("aria-label", `${label}, ${spoken}`);
    tab.holder.dataset["state"] = state;
    tab.holder.classList.toggle("waits", looks.waits);
    tab.holder.style.setProperty("--progress", `${progress ?? 0}%`);
    if (!panel.hidden) this._describeAll();
    this._measureSoon();
  }

  /** @param {1 | -1} step */
  turn(step) {
    const index = this._tabs.findIndex(({ panel }) => !panel.hidden);
    const next = this._tabs[(index + step + this._tabs.length) % this._tabs.length];
    if (next) this.select(next.panel);
  }

  /** Put the keyboard on the row. */
  focus() {
    const chosen = this._tabs.find(({ panel }) => !panel.hidden);
    const wanted = chosen?.button ?? byId("new-session");
    (wanted.checkVisibility() ? wanted : this._all).focus();
  }

  /** The button for all tabs: on a phone it is the one tab in sight; elsewhere it is there when not all tabs are. */
  _describeAll() {
    const label = this._tabs.find(({ panel }) => !panel.hidden)?.looks.label ?? "Home";
    const words = this._all.querySelector(".label");
    if (words) words.textContent = label;
    this._all.setAttribute("aria-label", `All tabs; this is ${label}`);
  }

  _measureSoon() {
    cancelAnimationFrame(this._measuring);
    this._measuring = requestAnimationFrame(() => {
      this._all.classList.toggle("needed", this._list.scrollWidth > this._list.clientWidth + 1);
    });
  }

  _fillAll() {
    const list = byId("tab-list");
    const row = (/** @type {Tab} */ { panel, looks: { label, state, spoken, waits } }) => {
      const go = (/** @type {() => void} */ act) => () => (list.hidePopover(), act());
      const choose = element(
        "button",
        { type: "button", "aria-current": String(!panel.hidden), on: { click: go(() => this.select(panel)) } },
        element("span", { className: "dot" }),
        element("span", { className: "label" }, label),
        element("span", { className: "small" }, spoken),
      );
      return element("li", { "data-state": state, className: waits ? "waits" : "" }, choose, iconButton(`Close ${label}`, "close", go(() => this._closing(panel))));
    };
    list.querySelector("ul")?.replaceChildren(...this._tabs.map(row));
  }

  /** @param {HTMLElement} panel */
  _find(panel) {
    const tab = this._tabs.find((tab) => tab.panel === panel);
    if (tab === undefined) throw new Error("this panel has no tab");
    return tab;
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    const index = this._tabs.findIndex(({ button }) => button === document.activeElement);
    if (index < 0) return;
    const last = this._tabs.length - 1;
    /** @type {Record<string, number>} */
    const targets = { ArrowLeft: index === 0 ? last : index - 1, ArrowRight: index === last ? 0 : index + 1, Home: 0, End: last };
    if (event.key === "Delete") this._closing(this._tabs[index].panel);
    else if (event.key in targets) this._tabs[targets[event.key]].button.focus();
    else return;
    event.preventDefault();
  }
}
