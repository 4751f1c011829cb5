/** What a person comes back to: the sessions and the named sandboxes that run, with or without a tab of this page. */

import { call, ending, ownName, sentence } from "./api.js";
import { byId, element } from "./dom.js";
import { amount } from "./files.js";
import { complain } from "./notices.js";

/**
 * @typedef {import("./api.js").Described} Described
 *
 * @typedef {Described & {called: string, here: boolean}} Listed by the name that it has here; whether this window shows it
 *
 * @typedef {object} Sandbox a named one, as the server lists it
 * @property {string} name
 * @property {string} profile
 * @property {"starting" | "attached" | "detached" | "ending"} state
 * @property {number} age in seconds, as `left`
 * @property {number | null} left of its lifetime
 * @property {number | null} cpu in cores
 * @property {number | null} memory in bytes
 * @property {boolean} home whether it has one, which outlives it
 */

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;
// Each look asks all sandboxes what they use.
const LOOK_MS = 30_000;
/** @type {Record<string, string>} */
const SANDBOX_STATES = { attached: "in use", detached: "nobody is in it" };
/** @type {Record<string, string>} */
const STATES = { new: "not started", starting: "starting", running: "running" };

export class Home {
  /**
   * @param {(described: Described) => void} open a tab for it
   * @param {() => Promise<void>} refresh the list
   * @param {(name: string) => void} enter another terminal in this sandbox
   */
  constructor(open, refresh, enter) {
    this._refresh = refresh;
    const rename = (/** @type {Listed} */ one) => this._ask("rename", one);
    const end = (/** @type {Listed} */ one) => this._ask("end", one);
    // What has ended can be read, and then it is in the way.
    /** @type {Rows<Listed>} */
    this._sessions = new Rows("running", ({ id }) => id, ({ state }) =>
      state === "ended" ? [["Show", open], ["Remove", end]] : [["Open", open], ["Rename", rename], ["End", end]]);
    /** @type {Rows<Sandbox>} */
    this._sandboxes = new Rows("sandboxes", ({ name }) => name, () => [["Open", ({ name }) => enter(name)], ["End", (one) => this._ask("endSandbox", one)]]);
    this._timer = 0;
  }

  /**
   * @param {Described[]} sessions
   * @param {Map<string | null, {name: string, state: string}>} tabs of this window, by the ids of their sessions
   */
  show(sessions, tabs) {
    const late = (/** @type {Described} */ { id, state }) => Number(state === "ended") * 2 + Number(!tabs.has(id));
    /** @type {Set<string>} */
    const taken = new Set();
    const listed = new Map();
    // Those with a tab have its name, also the number in it; the others' numbers follow.
    for (const one of sessions.toSorted((one, other) => late(one) - late(other))) {
      const tab = tabs.get(one.id);
      let name = tab?.name ?? called(one);
      for (let number = 2; taken.has(name); number += 1) name = `${called(one)} ${number}`;
      taken.add(name);
      listed.set(one.id, { ...one, called: name, here: tab !== undefined && !["idle", "elsewhere"].includes(tab.state) });
    }
    const ended = (/** @type {Described} */ { state }) => Number(state === "ended");
    this._sessions.show(sessions.toSorted((one, other) => ended(one) - ended(other)).map(({ id }) => listed.get(id)), sessionWords);
  }

  /** The named sandboxes, now and while a person looks at them. */
  async look() {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => void this.look(), LOOK_MS);
    if (byId("welcome").hidden || document.hidden) return;
    try {
      this._sandboxes.show((await call("sandboxes")).sandboxes, sandboxWords);
    } catch {
      // What the page is at is shown elsewhere.
    }
  }

  /** @param {"end" | "endSandbox" | "rename"} what @param {any} one */
  async _ask(what, one) {
    try {
      await (await import("./homeacts.js"))[what](one);
    } catch (error) {
      complain(sentence(error));
    }
    await Promise.all([this._refresh(), what === "endSandbox" && this.look()]);
  }
}

/**
 * The cards of one section, which is there when it has any. One that stays keeps its focus, and the press that has begun.
 *
 * @template One
 */
class Rows {
  /**
   * @param {string} id of the section; its list is `ID-list`
   * @param {(one: One) => string} key
   * @param {(one: One) => [string, (one: One) => unknown][]} acts
   */
  constructor(id, key, acts) {
    this._id = id;
    this._key = key;
    this._acts = acts;
    /** @type {Map<string, One>} */
    this._shown = new Map();
    /** @type {Map<string, HTMLElement>} */
    this._rows = new Map();
  }

  /**
   * @param {One[]} all
   * @param {(one: One) => [string, string, string]} words its name, what it is at, its last line
   */
  show(all, words) {
    const list = byId(`${this._id}-list`);
    this._shown = new Map(all.map((one) => [this._key(one), one]));
    byId(this._id).hidden = all.length === 0;
    const focused = [...this._rows].find(([, row]) => row.contains(document.activeElement));
    const place = focused ? [...list.children].indexOf(focused[1]) : 0;
    for (const [key, row] of this._rows) if (!this._shown.has(key) && this._rows.delete(key)) row.remove();
    for (const [index, [key, one]] of [...this._shown].entries()) {
      const row = this._rows.get(key) ?? this._row(key);
      this._offer(row, key, this._acts(one));
      describe(row, words(one));
      if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
    }
    if (!focused || list.contains(document.activeElement)) return;
    // What has ended has other buttons; what is gone has a neighbour.
    const next = this._rows.get(focused[0]) ?? list.children[Math.min(place, all.length - 1)];
    next?.querySelector("button")?.focus();
  }

  /** @param {string} key */
  _row(key) {
    const about = element("span", {}, element("strong"), element("span", { className: "small" }), element("code"));
    const row = element("li", {}, about, element("span", { className: "buttons" }));
    this._rows.set(key, row);
    return row;
  }

  /**
   * @param {HTMLElement} row
   * @param {string} key
   * @param {[string, (one: One) => unknown][]} acts
   */
  _offer(row, key, acts) {
    const [about, buttons] = row.children;
    if (acts.map(([label]) => label).join() === [...buttons.children].map((button) => button.textContent).join()) return;
    about.removeAttribute("title"); // so that the new buttons are described
    const made = acts.map(([label, act]) => {
      const press = () => {
        const one = this._shown.get(key);
        if (one) void act(one);
      };
      return element("button", { type: "button", className: "button", on: { click: press } }, label);
    });
    buttons.replaceChildren(...made);
  }
}

/**
 * @param {HTMLElement} row
 * @param {[string, string, string]} words
 */
function describe(row, words) {
  const [about, buttons] = row.children;
  const spoken = words.filter(Boolean).join(": ");
  if (about.getAttribute("title") === spoken) return;
  about.setAttribute("title", spoken);
  for (const [index, text] of words.entries()) about.children[index].textContent = text;
  for (const button of buttons.children) button.setAttribute("aria-label", `${button.textContent}: ${spoken}`);
}

/** @param {Described} described */
function called({ profile, name, title, label }) {
  return label || [title, ownName(name)].filter(Boolean).join(" · ") || profile;
}

/**
 * @param {Listed} listed
 * @returns {[string, string, string]}
 */
function sessionWords(listed) {
  const { called, here, state, attention, created, exit, last, ends } = listed;
  if (state === "ended") return [called, `${exit?.reason ? "Ended. " : ""}${ending(exit ?? undefined)}`, ""];
  const words = [
    ...about(listed),
    STATES[state] ?? state,
    here ? "has a tab here" : placeOf(listed) || "not open",
    `${since(Date.now() / 1000 - created)} old`,
    endsIn(ends ?? {}),
    attention ? `calls for attention${attention.text && `: ${attention.text}`}` : "",
  ];
  return [called, words.filter(Boolean).join(", "), last ?? ""];
}

/** What its name does not say. @param {Described} described */
function about({ profile, name, title, label }) {
  const own = [title, ownName(name)].filter(Boolean);
  return [...(label ? own : []), label || own.length ? profile : ""].filter(Boolean);
}

/** @param {Described} described */
function placeOf({ attached, source }) {
  return attached ? `open in another window${source ? `, from ${source}` : ""}` : "";
}

/**
 * What another window has: where, what it is, its last line.
 *
 * @param {Described | undefined} described
 */
export function elsewhere(described) {
  if (!described) return "This terminal is open in another window.";
  const { last } = described;
  const words = [called(described), ...about(described)].join(", ");
  return `${words}: ${placeOf({ ...described, attached: true })}.${last ? ` Its last line: ${last}` : ""}`;
}

/** @param {Sandbox} sandbox @returns {[string, string, string]} */
function sandboxWords({ name, profile, state, age, left, cpu, memory, home }) {
  const words = [
    profile,
    SANDBOX_STATES[state] ?? state,
    `${since(age)} old`,
    left === null ? "" : `ends in ${since(left)}`,
    cpu === null ? "" : `${cpu.toFixed(2)} cores`,
    memory === null ? "" : amount(memory),
    home ? "its files are kept" : "",
  ];
  return [name, words.filter(Boolean).join(", "), ""];
}

/** @typedef {Partial<Record<"lifetime" | "idle" | "detached", number>>} Ends in seconds since 1970; a clock that does not run is not there */

// A tab shows a clock from then on, in seconds before the end.
const SOON = { lifetime: 600, idle: 600, detached: 300 };
const IF = { lifetime: "", idle: " if nobody types", detached: " if nobody comes back" };
const ALL = /** @type {const} */ (["lifetime", "idle", "detached"]);

/**
 * The first of its clocks, and the one that nothing puts off.
 *
 * @param {Ends} ends
 */
export function endsIn(ends) {
  const [first] = byTime(ends);
  if (!first) return "";
  const last = first !== "lifetime" && ends.lifetime !== undefined ? `, in ${since(left(ends.lifetime))} at the latest` : "";
  return `ends in ${since(left(ends[first] ?? 0))}${IF[first]}${last}`;
}

/** @param {Ends} ends */
function byTime(ends) {
  return ALL.filter((clock) => ends[clock] !== undefined).sort((one, other) => (ends[one] ?? 0) - (ends[other] ?? 0));
}

/**
 * What a tab shows of an end that is near.
 *
 * @param {Ends} ends
 * @returns {{short: string, words: string}} both empty where none is
 */
export function nearEnd(ends) {
  const first = byTime(ends).find((clock) => left(ends[clock] ?? Infinity) <= SOON[clock]);
  if (!first) return { short: "", words: "" };
  const short = since(left(ends[first] ?? 0));
  return { short, words: `ends in ${short}${IF[first]}` };
}

/** @param {number} end */
function left(end) {
  return Math.max(0, end - Date.now() / 1000);
}

/** @param {number} seconds */
export function since(seconds) {
  if (seconds < HOUR) return `${Math.max(1, Math.round(seconds / MINUTE))} min`;
  return seconds < 2 * DAY ? `${Math.round(seconds / HOUR)} h` : `${Math.round(seconds / DAY)} days`;
}
