/** Sessions that go on in the person's sandboxes, whatever began them, a browser or ssh. */

import { call, ownName, sentence } from "./api.js";
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
 * @param {string} user the next one in this browser tab may be another
 * @param {Iterable<import("./session.js").Session>} sessions
 */
export function rememberPlaces(user, sessions) {
  const places = [...sessions].filter(({ state, name, held }) => !["ended", "failed"].includes(state) && name && held?.name);
  const kept = places.map(({ id, profile, name, held, title }) => ({ id, profile, name, held, title }));
  sessionStorage.setItem(PLACES_KEY, JSON.stringify({ user, kept }));
}

/**
 * What the tabs showed before a reload, and this gateway has no session for; only what still runs.
 *
 * @param {string} user
 * @param {(sandbox: string, name: string) => boolean} known
 * @returns {Promise<Place[]>}
 */
export async function recallPlaces(user, known) {
  const unknown = (/** @type {Place} */ { name, held }) => !known(name, held.name);
  try {
    /** @type {{user: string, kept: Place[]}} */
    const last = JSON.parse(sessionStorage.getItem(PLACES_KEY) ?? "{}");
    if (last.user !== user) return [];
    const places = last.kept.filter(unknown);
    // A sandbox may not answer; the others' tabs need not wait for it.
    const late = new Promise((late) => setTimeout(late, LOOK_MS, places));
    return (await Promise.race([goingOn(places), late]).catch(() => places)).filter(unknown);
  } catch {
    return []; // the list on the home page has them
  }
}

/**
 * Those whose session a sandbox still holds. A sandbox that does not answer now is not over.
 *
 * @template {{name: string | null, held: import("./api.js").Held | null}} One
 * @param {One[]} places
 * @returns {Promise<One[]>}
 */
export async function goingOn(places) {
  if (!places.some(({ held }) => held)) return [];
  /** @type {{sessions: HeldSession[], errors: Record<string, string>}} */
  const { sessions, errors } = await call("held-sessions");
  const running = new Set(sessions.filter(({ state }) => !state.startsWith("ended")).map(({ sandbox, name }) => `${sandbox}=${name}`));
  return places.filter(({ name, held }) => name && held && (Object.hasOwn(errors, name) || running.has(`${name}=${held.name}`)));
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
    const called = ownName(sandbox) ? `${sandbox}=${name}: ` : "";
    const words = `${called}${title || program}, ${state}${watched}, ${since(age)} old`;
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
