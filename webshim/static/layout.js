/** What a tab shows: up to four terminals, beside and below one another, of which one has the focus. */

import { element, iconButton } from "./dom.js";
import { readValue, write } from "./storage.js";

export const MOST = 4;
const SAVED_KEY = "sshgate.layouts";
// Of what two share, in percent: the least that one has, and how far a key moves what divides them.
const LEAST = 10;
const STEP = 5;
// Half of the gap between two.
const GAP_PIXELS = 3;
// A phone shows one at a time, as page.css has it.
const narrow = matchMedia("(max-width: 560px)");

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {{id?: string | null, name: string | null, held?: import("./api.js").Held | null}} Known
 * @typedef {"left" | "right" | "up" | "down"} Direction
 * @typedef {{x: number, y: number, width: number, height: number}} Place in percent of the tab
 *
 * @typedef {object} Leaf
 * @property {Session | null} session null: one that is to come back after a reload
 * @property {Mark} mark by which it is known then
 * @typedef {{id: string | null, held: string | null}} Mark
 *
 * @typedef {object} Fork
 * @property {boolean} across whether its second part is beside the first, not below it
 * @property {number} share of the first, in percent
 * @property {[Tree, Tree]} parts
 *
 * @typedef {Leaf | Fork} Tree
 */

/** @param {Known} known @returns {Mark} */
const markOf = ({ id, name, held }) => ({ id: id ?? null, held: name && held ? `${name}=${held.name}` : null });
/** @param {Tree} tree @returns {Leaf[]} */
const leaves = (tree) => ("parts" in tree ? tree.parts.flatMap(leaves) : [tree]);
/** @param {Tree} tree @returns {Session[]} */
const sessionsOf = (tree) => leaves(tree).flatMap(({ session }) => session ?? []);
/** @param {Tree} tree @param {Mark} mark */
const waiting = (tree, { id, held }) => leaves(tree).find(({ session, mark }) => !session && ((id && mark.id === id) || (held && mark.held === held)));

/** @param {Tree} tree @param {(leaf: Leaf) => boolean} kept @returns {Tree | null} what remains */
function prune(tree, kept) {
  if (!("parts" in tree)) return kept(tree) ? tree : null;
  const [first, second] = tree.parts.map((part) => prune(part, kept));
  if (first && second) tree.parts = [first, second];
  return first && second ? tree : (first ?? second);
}

let made = 0;

export class Layout {
  /** Whether the one with the focus has the whole tab. */
  zoomed = false;

  /**
   * @param {Tree} tree with one session at least
   * @param {{moved: () => void, close: (session: Session) => void}} listener `moved`: another one has the focus
   */
  constructor(tree, listener) {
    this._tree = tree;
    this._listener = listener;
    this._visible = false;
    made += 1;
    this.panel = element("section", { className: "layout", id: `layout-${made}` });
    /** @type {Map<Session, {pane: HTMLElement, label: HTMLElement, place: Place}>} */
    this._panes = new Map();
    /** Where each fork lies, and what is between its parts. @type {Map<Fork, {divider: HTMLElement, whole: Place}>} */
    this._forks = new Map();
    this.focused = this.sessions[0];
    for (const kind of ["focusin", "pointerdown", "drop"]) {
      this.panel.addEventListener(kind, ({ target }) => {
        const within = this.sessions.find((session) => this._panes.get(session)?.pane.contains(/** @type {Node} */ (target)));
        if (within) this._enter(within);
      }, true);
    }
    this._arrange();
  }

  /** From the first to the last. */
  get sessions() {
    return sessionsOf(this._tree);
  }

  /** @param {Session} session */
  sees(session) {
    return this._visible && (this._panes.get(session)?.pane.checkVisibility() ?? false);
  }

  /** Its tab is selected. Those that are in sight are attached; the focus is with one. @param {boolean} [focuses] false: it stays where it is */
  show(focuses = true) {
    this._visible = true;
    for (const session of this.sessions) {
      if (!this.sees(session)) session.hidden();
      else if (session !== this.focused) session.shown(false);
    }
    this.focused.shown(focuses);
  }

  hide() {
    this._visible = false;
    for (const session of this.sessions) session.hidden();
  }

  /**
   * One that was here before a reload.
   *
   * @param {Session} session
   * @param {Mark} mark
   */
  admit(session, mark) {
    const leaf = waiting(this._tree, mark);
    if (leaf) leaf.session = session;
    if (leaf) this._arrange();
    return leaf !== undefined;
  }

  /** Those that have not come back do not come. */
  settle() {
    this._tree = prune(this._tree, ({ session }) => session !== null) ?? this._tree;
    // One that came while its tab was shown already is attached only now.
    if (this._visible) this.show(false);
  }

  /**
   * @param {Session} session
   * @param {boolean} across beside the one with the focus; else below it
   * @param {boolean} [before] on its other side
   */
  split(session, across, before = false) {
    const leaf = /** @type {Leaf} */ (leaves(this._tree).find((one) => one.session === this.focused));
    const parts = [{ ...leaf }, { session, mark: markOf(session) }];
    // In the leaf's place, whatever it hangs from.
    Object.assign(leaf, { across, share: 50, parts: before ? parts.reverse() : parts });
    for (const gone of ["session", "mark"]) delete (/** @type {any} */ (leaf)[gone]);
    this.zoomed = false;
    this._arrange();
    this._enter(session);
  }

  /** @param {Session} session @returns {boolean} whether others remain */
  remove(session) {
    const all = this.sessions;
    const at = all.indexOf(session);
    this._panes.get(session)?.pane.remove();
    this._panes.delete(session);
    if (all.length === 1) {
      // Others of its tab may still come back after a reload, without it.
      for (const leaf of leaves(this._tree)) leaf.session = null;
      return false;
    }
    this._tree = /** @type {Tree} */ (prune(this._tree, (leaf) => leaf.session !== session));
    this._arrange();
    if (session === this.focused) this._enter(all[at + 1] ?? all[at - 1]);
    if (this._visible) this.show();
    return true;
  }

  /** @param {Session} session */
  focus(session) {
    this._enter(session);
    if (this._visible) this.show();
  }

  /** The focus goes to the next one in a direction. @param {Direction} direction */
  go(direction) {
    const from = this._panes.get(this.focused)?.place;
    if (!from) return;
    const found = this.sessions
      .filter((session) => session !== this.focused)
      .map((session) => ({ session, far: distance(from, this._panes.get(session)?.place ?? from, direction) }))
      .sort((one, other) => one.far - other.far)[0];
    if (found && found.far < Infinity) this.focus(found.session);
  }

  /** The whole tab for the one with the focus, or a part again. */
  zoom() {
    this.zoomed = !this.zoomed && this.sessions.length > 1;
    this._arrange();
    if (this._visible) this.show();
  }

  /**
   * @param {Session} session
   * @param {string} name
   */
  describe(session, name) {
    const known = this._panes.get(session);
    const all = this.sessions;
    if (!known) return;
    known.label.textContent = all.length > 1 ? `${name} (${all.indexOf(session) + 1} of ${all.length})` : name;
    known.pane.setAttribute("aria-label", name);
  }

  /** As it is remembered; null for a single terminal. */
  get saved() {
    /** @param {Tree} tree @returns {object} */
    const plain = (tree) =>
      "parts" in tree ? { ...tree, parts: tree.parts.map(plain) } : { session: null, mark: tree.session ? markOf(tree.session) : tree.mark };
    return "parts" in this._tree ? plain(this._tree) : null;
  }

  /** @param {Session} session */
  _enter(session) {
    if (session === this.focused) return;
    this.focused = session;
    this._mark();
    this._listener.moved();
  }

  _mark() {
    const split = this.sessions.length > 1;
    this.panel.classList.toggle("split", split);
    this.zoomed &&= split;
    this.panel.classList.toggle("zoomed", this.zoomed);
    for (const [session, { pane }] of this._panes) pane.classList.toggle("focused", session === this.focused);
  }

  _arrange() {
    const { _forks: before } = this;
    this._forks = new Map();
    this._place(this._tree, { x: 0, y: 0, width: 100, height: 100 }, before);
    for (const [fork, { divider }] of before) if (!this._forks.has(fork)) divider.remove();
    this._mark();
  }

  /**
   * @param {Tree} tree
   * @param {Place} place
   * @param {Layout["_forks"]} before
   */
  _place(tree, place, before) {
    if (!("parts" in tree)) {
      if (!tree.session) return;
      const known = this._panes.get(tree.session) ?? this._pane(tree.session);
      known.place = place;
      put(known.pane, place);
      return;
    }
    const [first, second] = tree.parts;
    const present = tree.parts.filter((part) => sessionsOf(part).length);
    if (present.length < 2) {
      for (const part of present) this._place(part, place, before);
      return;
    }
    const { x, y, width, height } = place;
    const [wide, high] = tree.across ? [(width * tree.share) / 100, height] : [width, (height * tree.share) / 100];
    this._place(first, { x, y, width: wide, height: high }, before);
    this._place(second, tree.across ? { x: x + wide, y, width: width - wide, height } : { x, y: y + high, width, height: height - high }, before);
    const divider = before.get(tree)?.divider ?? this._divider(tree);
    this._forks.set(tree, { divider, whole: place });
    divider.setAttribute("aria-valuenow", String(Math.round(tree.share)));
    const line = tree.across ? { left: `${x + wide}%`, top: `${y}%`, height: `${height}%` } : { left: `${x}%`, top: `${y + high}%`, width: `${width}%` };
    Object.assign(divider.style, line);
  }

  /** @param {Session} session */
  _pane(session) {
    const label = element("span", { className: "label" });
    const step = (/** @type {number} */ by) => {
      const all = this.sessions;
      this.focus(all[(all.indexOf(session) + by + all.length) % all.length]);
    };
    const bar = element(
      "div",
      { className: "pane-bar", on: { click: (event) => event.target instanceof Element && !event.target.closest("button") && this.focus(session) } },
      label,
      iconButton("Next terminal of this tab", "down", () => step(1), "icon-button turn"),
      iconButton("The whole tab, or a part of it", "zoom", () => (this._enter(session), this.zoom()), "icon-button zoom"),
      iconButton("Close this terminal", "close", () => this._listener.close(session)),
    );
    const pane = element("div", { className: "pane", role: "group" }, bar, session.panel);
    // The Tab key goes from the first to the last.
    const next = this.sessions.slice(this.sessions.indexOf(session)).find((one) => this._panes.has(one));
    this.panel.insertBefore(pane, (next && this._panes.get(next)?.pane) ?? null);
    const known = { pane, label, place: { x: 0, y: 0, width: 100, height: 100 } };
    this._panes.set(session, known);
    return known;
  }

  /** What divides two: moved by a pointer, or by arrow keys. @param {Fork} fork */
  _divider(fork) {
    const { across } = fork;
    const move = (/** @type {number} */ share) => {
      fork.share = Math.min(100 - LEAST, Math.max(LEAST, share));
      this._arrange();
    };
    /** @type {Record<string, number>} */
    const keys = across ? { ArrowLeft: -STEP, ArrowRight: STEP } : { ArrowUp: -STEP, ArrowDown: STEP };
    const divider = element("div", {
      className: across ? "divider across" : "divider",
      role: "separator",
      tabIndex: 0,
      "aria-label": across ? "Width" : "Height",
      "aria-orientation": across ? "vertical" : "horizontal",
      "aria-valuemin": LEAST,
      "aria-valuemax": 100 - LEAST,
      on: {
        keydown: (/** @type {KeyboardEvent} */ event) => {
          if (!(event.key in keys) || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
          event.preventDefault();
          move(fork.share + keys[event.key]);
        },
        pointerdown: (/** @type {PointerEvent} */ event) => event.button === 0 && divider.setPointerCapture(event.pointerId),
        pointermove: (/** @type {PointerEvent} */ event) => {
          const whole = this._forks.get(fork)?.whole;
          if (!whole || !divider.hasPointerCapture(event.pointerId)) return;
          const { left, top, width, height } = this.panel.getBoundingClientRect();
          const at = across ? (event.clientX - left) / width : (event.clientY - top) / height;
          move(((at * 100 - (across ? whole.x : whole.y)) / (across ? whole.width : whole.height)) * 100);
        },
        pointerup: () => this.focused.screen?.focus(),
        dblclick: () => move(50),
      },
    });
    this.panel.append(divider);
    return divider;
  }
}

/** @param {HTMLElement} pane @param {Place} place */
function put({ style }, { x, y, width, height }) {
  const gap = (/** @type {number} */ edge) => (edge > 0.01 && edge < 99.99 ? GAP_PIXELS : 0);
  style.left = `calc(${x}% + ${gap(x)}px)`;
  style.top = `calc(${y}% + ${gap(y)}px)`;
  style.width = `calc(${width}% - ${gap(x) + gap(x + width)}px)`;
  style.height = `calc(${height}% - ${gap(y) + gap(y + height)}px)`;
}

/** @param {Place} from @param {Place} to @param {Direction} direction */
function distance(from, to, direction) {
  const [right, down] = [from.x + from.width, from.y + from.height];
  const ahead = { left: from.x - to.x - to.width, right: to.x - right, up: from.y - to.y - to.height, down: to.y - down }[direction];
  const [middle, begin, length] =
    direction === "left" || direction === "right" ? [from.y + from.height / 2, to.y, to.height] : [from.x + from.width / 2, to.x, to.width];
  return ahead < -0.01 ? Infinity : ahead + Math.max(0, begin - middle, middle - begin - length);
}

/** The layouts of all tabs. */
export class Layouts {
  /**
   * @param {import("./tabs.js").Tabs} tabs
   * @param {HTMLElement} panels
   * @param {{moved: () => void, close: (session: Session) => void}} listener
   */
  constructor(tabs, panels, listener) {
    this._tabs = tabs;
    this._panels = panels;
    this._listener = listener;
    /** @type {Map<HTMLElement, Layout>} */
    this.all = new Map();
    /** @type {Tree[]} */
    this._saved = recall();
    narrow.addEventListener("change", () => this.shown?.show(false));
  }

  /** The layout of the selected tab. */
  get shown() {
    const panel = this._tabs.shown;
    return panel ? this.all.get(panel) : undefined;
  }

  /** The same, where it has several terminals. */
  get split() {
    const { shown } = this;
    return shown && shown.sessions.length > 1 ? shown : undefined;
  }

  /** @param {Session} session */
  of(session) {
    return [...this.all.values()].find(({ sessions }) => sessions.includes(session));
  }

  /** A tab for it, or its place in one as before a reload. @param {Session} session @param {Known} known */
  add(session, known) {
    const mark = markOf(known);
    if ([...this.all.values()].some((layout) => layout.admit(session, mark))) return;
    const tree = this._saved.find((saved) => waiting(saved, mark)) ?? { session: null, mark };
    const leaf = waiting(tree, mark);
    // Its mark may be empty: then it is the only leaf.
    Object.assign(leaf ?? tree, { session });
    const layout = new Layout(tree, this._listener);
    this.all.set(layout.panel, layout);
    this._panels.append(layout.panel);
    this._tabs.add(layout.panel);
  }

  /** @param {Session} session */
  select(session) {
    const layout = this.of(session);
    if (!layout) return;
    layout.focus(session);
    this._tabs.select(layout.panel);
  }

  /** @param {HTMLElement | null} panel of the tab that is selected */
  turnedTo(panel) {
    for (const layout of this.all.values()) if (layout.panel !== panel) layout.hide();
    if (panel) this.all.get(panel)?.show();
  }

  /** @param {Session} session */
  remove(session) {
    const layout = this.of(session);
    if (!layout || layout.remove(session)) return;
    this.all.delete(layout.panel);
    this._tabs.remove(layout.panel);
  }

  /** It leaves the others of its tab. @param {Session} session */
  apart(session) {
    this.remove(session);
    this.add(session, { name: null });
    this.select(session);
  }

  settle() {
    this._saved = [];
    for (const layout of this.all.values()) layout.settle();
  }

  /** The page goes. */
  remember() {
    write("sessionStorage", SAVED_KEY, JSON.stringify([...this.all.values()].flatMap(({ saved }) => saved ?? [])));
  }
}

/** @returns {Tree[]} */
function recall() {
  return readValue("sessionStorage", SAVED_KEY) ?? [];
}
