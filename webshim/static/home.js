/** What a person comes back to: the sessions that run without a tab of this page. */

import { asSentence, call, ownName, sentence } from "./api.js";
import { byId, element } from "./dom.js";
import { complain } from "./notices.js";

/** @typedef {import("./api.js").Described} Described */

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

export class Home {
  /**
   * @param {(described: Described) => void} open a tab for it
   * @param {() => Promise<void>} refresh the list
   */
  constructor(open, refresh) {
    this._open = open;
    this._refresh = refresh;
    /** @type {Map<string, Described>} */
    this._sessions = new Map();
    /** By the session's id: a row that stays keeps its focus, and the press that has begun. @type {Map<string, HTMLElement>} */
    this._rows = new Map();
  }

  /** @param {Described[]} sessions those without a tab */
  show(sessions) {
    const list = byId("running-list");
    this._sessions = new Map(sessions.map((described) => [described.id, described]));
    byId("running").hidden = sessions.length === 0;
    for (const [id, row] of this._rows) if (!this._sessions.has(id) && this._rows.delete(id)) row.remove();
    for (const [index, described] of sessions.entries()) {
      const row = this._rows.get(described.id) ?? this._row(described.id);
      describe(row, words(described));
      if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
    }
  }

  /** @param {string} id */
  _row(id) {
    const button = (/** @type {string} */ label, /** @type {(described: Described) => unknown} */ act) => {
      const press = () => {
        const described = this._sessions.get(id);
        if (described) void act(described);
      };
      return element("button", { type: "button", className: "button", on: { click: press } }, label);
    };
    const row = element("li", {}, element("span", {}), button("Open", this._open), button("End", (described) => this._end(described)));
    this._rows.set(id, row);
    return row;
  }

  /** @param {Described} described */
  async _end({ id }) {
    try {
      await call(`sessions/${encodeURIComponent(id)}`, "DELETE");
    } catch (error) {
      complain(sentence(error));
    }
    await this._refresh();
  }
}

/**
 * @param {HTMLElement} row
 * @param {string} words
 */
function describe(row, words) {
  const [text, ...buttons] = row.children;
  if (text.textContent === words) return;
  text.textContent = words;
  text.setAttribute("title", words);
  for (const button of buttons) button.setAttribute("aria-label", `${button.textContent}: ${words}`);
}

/** @param {Described} described */
function words({ profile, name, title, state, attached, attention, created, exit }) {
  const called = title || ownName(name) || profile;
  const age = `${since(Date.now() / 1000 - created)} old`;
  if (state === "ended") return `${called}: ended. ${exit?.reason ? asSentence(exit.reason) : ""}`.trim();
  const calls = attention ? `, calls for attention${attention.text && `: ${attention.text}`}` : "";
  return `${called}: ${state}, ${attached ? "open in another window" : "not open"}, ${age}${calls}`;
}

/** @param {number} seconds */
export function since(seconds) {
  if (seconds < HOUR) return `${Math.max(1, Math.round(seconds / MINUTE))} min`;
  return seconds < 2 * DAY ? `${Math.round(seconds / HOUR)} h` : `${Math.round(seconds / DAY)} days`;
}
