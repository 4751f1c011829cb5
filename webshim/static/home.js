/** What a person comes back to: the sessions and the named sandboxes that run, with or without a tab of this page. */

import { asSentence, call, ownName, sentence } from "./api.js";
import { byId, element } from "./dom.js";
import { amount } from "./files.js";
import { complain } from "./notices.js";

/**
 * @typedef {import("./api.js").Described} Described
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
    /** @type {Rows<Described>} */
    this._sessions = new Rows("running", ({ id }) => id, [["Open", open], ["Rename", (one) => this._ask("rename", one)], ["End", (one) => this._ask("end", one)]]);
    /** @type {Rows<Sandbox>} */
    this._sandboxes = new Rows("sandboxes", ({ name }) => name, [["Open", ({ name }) => enter(name)], ["End", (one) => this._ask("endSandbox", one)]]);
    this._timer = 0;
  }

  /**
   * @param {Described[]} sessions
   * @param {(id: string) => boolean} here whether it has a tab
   */
  show(sessions, here) {
    const ended = (/** @type {Described} */ { state }) => Number(state === "ended");
    this._sessions.show(sessions.toSorted((one, other) => ended(one) - ended(other)), (described) => sessionWords(described, here(described.id)));
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
   * @param {[string, (one: One) => unknown][]} acts
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
    for (const [key, row] of this._rows) if (!this._shown.has(key) && this._rows.delete(key)) row.remove();
    for (const [index, [key, one]] of [...this._shown].entries()) {
      const row = this._rows.get(key) ?? this._row(key);
      describe(row, words(one));
      if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
    }
  }

  /** @param {string} key */
  _row(key) {
    const about = element("span", {}, element("strong"), element("span", { className: "small" }), element("code"));
    const buttons = this._acts.map(([label, act]) => {
      const press = () => {
        const one = this._shown.get(key);
        if (one) void act(one);
      };
      return element("button", { type: "button", className: "button", on: { click: press } }, label);
    });
    const row = element("li", {}, about, element("span", { className: "buttons" }, ...buttons));
    this._rows.set(key, row);
    return row;
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
export function called({ profile, name, title, label }) {
  return label || [title, ownName(name)].filter(Boolean).join(" · ") || profile;
}

/**
 * @param {Described} described
 * @param {boolean} here
 * @returns {[string, string, string]}
 */
function sessionWords(described, here) {
  const { profile, state, attached, source, attention, created, exit, last, ends } = described;
  if (state === "ended") return [called(described), `Ended. ${exit?.reason ? asSentence(exit.reason) : ""}`.trim(), ""];
  const elsewhere = attached ? `open in another window${source ? `, from ${source}` : ""}` : "not open";
  const words = [
    profile === called(described) ? "" : profile,
    STATES[state] ?? state,
    here ? "has a tab here" : elsewhere,
    `${since(Date.now() / 1000 - created)} old`,
    endsIn(ends ?? {}),
    attention ? `calls for attention${attention.text && `: ${attention.text}`}` : "",
  ];
  return [called(described), words.filter(Boolean).join(", "), last ?? ""];
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
const UNLESS = { lifetime: "", idle: " unless somebody types", detached: " unless somebody comes back" };
const ALL = /** @type {const} */ (["lifetime", "idle", "detached"]);

/** @param {Ends} ends */
export function endsIn(ends) {
  const words = ALL.flatMap((clock) => (ends[clock] === undefined ? [] : [`in ${since(left(ends[clock]))}${UNLESS[clock]}`]));
  return words.length ? `ends ${words.join(", ")}` : "";
}

/**
 * What a tab shows of an end that is near.
 *
 * @param {Ends} ends
 * @returns {{short: string, words: string}} both empty where none is
 */
export function nearEnd(ends) {
  const near = ALL.filter((clock) => left(ends[clock] ?? Infinity) <= SOON[clock]);
  const [first] = near.sort((one, other) => (ends[one] ?? 0) - (ends[other] ?? 0));
  if (!first) return { short: "", words: "" };
  const short = since(left(ends[first] ?? 0));
  return { short, words: `ends in ${short}${UNLESS[first]}` };
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
