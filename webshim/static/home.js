/** What a person comes back to: the sessions that run without a tab of this page. */

import { asSentence, call, sentence } from "./api.js";
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
    this._drawn = "";
  }

  /** @param {Described[]} sessions those without a tab */
  show(sessions) {
    const rows = sessions.map((described) => ({ described, words: words(described) }));
    // What is as it was keeps its focus.
    const drawn = JSON.stringify(rows.map(({ described, words }) => [described.id, words]));
    if (drawn === this._drawn) return;
    this._drawn = drawn;
    byId("running").hidden = rows.length === 0;
    byId("running-list").replaceChildren(...rows.map(({ described, words }) => this._row(described, words)));
  }

  /**
   * @param {Described} described
   * @param {string} words
   */
  _row(described, words) {
    const button = (/** @type {string} */ label, /** @type {() => void} */ act) =>
      element("button", { type: "button", className: "button", "aria-label": `${label}: ${words}`, on: { click: act } }, label);
    return element(
      "li",
      {},
      element("span", { title: words }, words),
      button("Open", () => this._open(described)),
      button("End", () => void this._end(described)),
    );
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

/** @param {Described} described */
function words({ profile, name, title, state, attached, attention, created, exit }) {
  const called = title || name || profile;
  const age = `${since(Date.now() / 1000 - created)} old`;
  if (state === "ended") return `${called}: ended. ${exit?.reason ? asSentence(exit.reason) : ""}`.trim();
  const calls = attention ? `, calls for attention${attention.text && `: ${attention.text}`}` : "";
  return `${called}: ${state}, ${attached ? "open in another tab" : "not open"}, ${age}${calls}`;
}

/** @param {number} seconds */
export function since(seconds) {
  if (seconds < HOUR) return `${Math.max(1, Math.round(seconds / MINUTE))} min`;
  return seconds < 2 * DAY ? `${Math.round(seconds / HOUR)} h` : `${Math.round(seconds / DAY)} days`;
}
