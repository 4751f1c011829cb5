/** Sessions that go on in the person's sandboxes, whatever began them, a browser or ssh. */

import { call, sentence } from "./api.js";
import { byId, element } from "./dom.js";
import { since } from "./home.js";
import { complain } from "./notices.js";

/**
 * @typedef {object} HeldSession
 * @property {string} sandbox
 * @property {string} name
 * @property {string} program
 * @property {string} title
 * @property {string} state `attached from ADDRESS`, `detached`, or `ended: …`
 * @property {string[]} watchers the addresses of who watches it by a link
 * @property {number} age in seconds
 */

/**
 * @typedef {object} Place where a tab's session is held
 * @property {string | null} id the page's own, at the gateway that it had then
 * @property {string} profile
 * @property {string} name
 * @property {import("./api.js").Held} held
 * @property {string} title
 */

const PLACES_KEY = "sshgate.places";
const LOOK_MS = 5000;

/**
 * The page goes: remember where the sessions of its tabs are held.
 *
 * @param {Iterable<import("./session.js").Session>} sessions
 */
export function rememberPlaces(sessions) {
  const places = [...sessions].filter(({ state, name, held }) => !["ended", "failed"].includes(state) && name && held?.name);
  const words = places.map(({ id, profile, name, held, title }) => ({ id, profile, name, held, title }));
  sessionStorage.setItem(PLACES_KEY, JSON.stringify(words));
}

/**
 * What the tabs showed before a reload, and this gateway has no session for; only what still runs.
 *
 * @param {(sandbox: string, name: string) => boolean} known
 * @returns {Promise<Place[]>}
 */
export async function recallPlaces(known) {
  try {
    /** @type {Place[]} */
    const kept = JSON.parse(sessionStorage.getItem(PLACES_KEY) ?? "[]");
    const places = kept.filter(({ name, held }) => !known(name, held.name));
    if (places.length === 0) return [];
    /** @type {{sessions: HeldSession[]} | null} */
    const found = await Promise.race([call("held-sessions"), new Promise((late) => setTimeout(late, LOOK_MS, null))]);
    if (!found) return places; // a sandbox does not answer; the others' tabs need not wait for it
    const running = new Set(found.sessions.filter(({ state }) => !state.startsWith("ended")).map(({ sandbox, name }) => `${sandbox}=${name}`));
    return places.filter(({ name, held }) => running.has(`${name}=${held.name}`));
  } catch {
    return []; // the list on the home page has them
  }
}

export class HeldList {
  /**
   * @param {(sandbox: string, name: string) => void} open a tab for it
   * @param {(sandbox: string, name: string) => boolean} known the page shows it already
   */
  constructor(open, known) {
    this._open = open;
    this._known = known;
  }

  /** Ask again. Each look costs the sandboxes something, so this is for when a person comes to see it. */
  async look() {
    try {
      /** @type {{sessions: HeldSession[]}} */
      const { sessions } = await call("held-sessions");
      this._show(sessions.filter(({ sandbox, name }) => !this._known(sandbox, name)));
    } catch {
      this._show([]); // what the page is at is said elsewhere
    }
  }

  /** @param {HeldSession[]} sessions */
  _show(sessions) {
    byId("held").hidden = sessions.length === 0;
    byId("held-list").replaceChildren(...sessions.map((one) => this._row(one)));
  }

  /** @param {HeldSession} held */
  _row({ sandbox, name, program, title, state, watchers, age }) {
    const watched = watchers.length ? `, watched from ${watchers.join(", ")}` : "";
    const words = `${sandbox}=${name}: ${title || program}, ${state}${watched}, ${since(age)} old`;
    const button = (/** @type {string} */ label, /** @type {() => void} */ act) =>
      element("button", { type: "button", className: "button", "aria-label": `${label}: ${words}`, on: { click: act } }, label);
    const buttons = state.startsWith("ended")
      ? []
      : [button("Open", () => this._open(sandbox, name)), button("End", () => void this._end(sandbox, name))];
    return element("li", {}, element("span", { title: words }, words), ...buttons);
  }

  /**
   * @param {string} sandbox
   * @param {string} name
   */
  async _end(sandbox, name) {
    try {
      await call(`held-sessions/${encodeURIComponent(sandbox)}/${encodeURIComponent(name)}`, "DELETE");
    } catch (error) {
      complain(sentence(error));
    }
    await this.look();
  }
}
