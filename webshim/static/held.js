/** Sessions that go on in the person's sandboxes, whatever began them, a browser or ssh. */

import { call, ownName, Refused, sentence } from "./api.js";
import { since } from "./home.js";
import { byId, element } from "./dom.js";
import { complain } from "./notices.js";
import { readValue, write } from "./storage.js";

/**
 * @typedef {import("./session.js").Session} Session
 *
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
const LEFT_KEY = "sshgate.left";
const LOOK_MS = 5000;
const ENDING_MS = 3000;
// What a sandbox still holds is asked about again after 15 s, and each time later: an end may take long.
const AGAIN_MS = 15_000;
const LONGEST_AGAIN_MS = 5 * 60_000;

/**
 * The page goes: remember where the sessions of its tabs are held.
 *
 * @param {string} user the next one in this browser tab may be another
 * @param {Iterable<Session>} sessions
 */
export function rememberPlaces(user, sessions) {
  const places = [...sessions].filter(({ state, name, held }) => !["ended", "failed"].includes(state) && name && held?.name);
  const kept = places.map(({ id, profile, name, held, title }) => ({ id, profile, name, held, title }));
  write("sessionStorage", PLACES_KEY, JSON.stringify({ user, kept }));
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
    /** @type {{user: string, kept: Place[]} | null} */
    const last = readValue("sessionStorage", PLACES_KEY);
    if (last?.user !== user) return [];
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

/** Whether a session has no tab here by the person's choice. @param {string} id */
export function isLeft(id) {
  return left().includes(id);
}

/**
 * @param {string} id
 * @param {boolean} away it runs without a tab from now on
 */
export function setLeft(id, away) {
  const others = left().filter((one) => one !== id);
  write("sessionStorage", LEFT_KEY, JSON.stringify(away ? [...others, id] : others));
}

/**
 * A tab was closed before its session was there: what was begun for it ends, what was joined goes on without a tab.
 *
 * @param {string} id
 * @param {boolean} begun
 */
export async function abandon(id, begun) {
  if (begun) await call(`sessions/${encodeURIComponent(id)}`, "DELETE");
  else setLeft(id, true);
}

/** @param {string} sandbox @param {string} name */
export async function endHeld(sandbox, name) {
  try {
    await call(`held-sessions/${encodeURIComponent(sandbox)}/${encodeURIComponent(name)}`, "DELETE");
  } catch (error) {
    // A sandbox that is gone holds nothing.
    if (!(error instanceof Refused) || error.status !== 404) throw error;
  }
}

/** @returns {string[]} */
function left() {
  return readValue("sessionStorage", LEFT_KEY) ?? [];
}

export class HeldList {
  /**
   * @param {(sandbox: string, name: string) => void} open a tab for it
   * @param {(sandbox: string, name: string) => boolean} known the page shows it already
   */
  constructor(open, known) {
    this._open = open;
    this._known = known;
    this._asking = false;
    /** @type {(() => Promise<void>) | null} what was asked for meanwhile */
    this._missed = null;
    /** When those that a sandbox still holds are asked about again. @type {WeakMap<Session, {at: number, wait: number}>} */
    this._kept = new WeakMap();
  }

  /** @param {Session} session */
  _due(session) {
    // What this gateway has never known was asked about when the page began.
    if (session.id === null && !this._kept.has(session)) this._keep(session);
    return (this._kept.get(session)?.at ?? 0) <= Date.now();
  }

  /** @param {Session} session */
  _keep(session) {
    const wait = Math.min(2 * (this._kept.get(session)?.wait ?? AGAIN_MS / 2), LONGEST_AGAIN_MS);
    this._kept.set(session, { at: Date.now() + wait, wait });
  }

  /**
   * Tabs that this gateway does not know go, but for what a sandbox holds: another gateway has had that, and it is joined
   * when it is shown.
   *
   * @param {Session[]} unlisted
   * @param {(session: Session) => boolean} still whether one has a tab, and is unlisted
   * @param {(session: Session) => void} drop
   */
  async forsake(unlisted, still, drop) {
    unlisted = unlisted.filter((session) => this._due(session));
    if (unlisted.length === 0) return;
    if (this._asking) {
      this._missed = () => this.forsake(unlisted.filter(still), still, drop);
      return;
    }
    this._asking = true;
    let looks = 0;
    // One that is being ended is held for a moment longer than it is listed; and one look may fail.
    for (const wait of [0, ENDING_MS, ENDING_MS]) {
      await new Promise((resume) => setTimeout(resume, wait));
      // Only what was asked about goes: others may have been attached just then.
      unlisted = unlisted.filter(still);
      const on = await goingOn(unlisted).catch(() => null);
      if (on === null) continue;
      for (const session of unlisted.filter(still)) if (!on.includes(session)) drop(session);
      unlisted = on;
      looks += 1;
      if (looks === 2) break;
    }
    for (const session of looks === 2 ? unlisted.filter(still) : []) {
      session.id = null;
      this._keep(session);
    }
    this._asking = false;
    const missed = this._missed;
    this._missed = null;
    await missed?.();
  }

  /** Ask again. Each look costs the sandboxes something, so this is for when a person comes to see it. */
  async look() {
    try {
      /** @type {{sessions: HeldSession[]}} */
      const { sessions } = await call("held-sessions");
      this._show(sessions.filter(({ sandbox, name }) => !this._known(sandbox, name)));
    } catch {
      this._show([]); // what the page is at is shown elsewhere
    }
  }

  /** @param {HeldSession[]} sessions */
  _show(sessions) {
    byId("held").hidden = sessions.length === 0;
    byId("held-list").replaceChildren(...sessions.map((one) => this._row(one)));
  }

  /** @param {HeldSession} held */
  _row(held) {
    const { sandbox, name, program, title, state, watchers, age } = held;
    const watched = watchers.length ? `, watched from ${watchers.join(", ")}` : "";
    const called = ownName(sandbox) ? `${sandbox}=${name}: ` : "";
    const words = `${called}${title || program}, ${state}${watched}, ${since(age)} old`;
    const button = (/** @type {string} */ label, /** @type {() => void} */ act) =>
      element("button", { type: "button", className: "button", "aria-label": `${label}: ${words}`, on: { click: act } }, label);
    const buttons = state.startsWith("ended")
      ? []
      : [button("Open", () => this._open(sandbox, name)), button("End", () => void this._end(held))];
    return element("li", {}, element("span", { title: words }, words), ...buttons);
  }

  /** @param {HeldSession} held */
  async _end(held) {
    const { sandbox, name, program, title } = held;
    try {
      const { endHeldSession } = await import("./homeacts.js");
      await endHeldSession(held, ownName(sandbox) ? `${sandbox}=${name}` : title || program);
    } catch (error) {
      complain(sentence(error));
    }
    await this.look();
  }
}
