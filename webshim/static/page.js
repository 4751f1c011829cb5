/** The page: who is logged in, which sessions there are, which one is shown. */

import { bindButtons, bindMenu, fillKeys, keyed, refreshButtons } from "./actions.js";
import { typeDropped, typeFiles } from "./agentinput.js";
import { call, LATE_MS, ownName, persistently, sentence } from "./api.js";
import { markIcon, showOnDesktop, watched } from "./attention.js";
import { askForPath, askForSession, askToClose } from "./dialogs.js";
import { byId } from "./dom.js";
import { bring, drag } from "./dragging.js";
import { download, filesChanged, takeDrops, toggleFiles, upload } from "./files.js";
import { follow } from "./follow.js";
import { followViewport, KeyBar } from "./keybar.js";
import { HeldList, isLeft, recallPlaces, rememberPlaces, setLeft } from "./held.js";
import { Home } from "./home.js";
import { takePageKeys } from "./keys.js";
import { Layouts, MOST } from "./layout.js";
import { askAboutPort } from "./links.js";
import { describeUser, followLoginLinks, loggedIn, takeTicket } from "./login.js";
import { complain, notify } from "./notices.js";
import { followRoutes, leadsTo, readRoute, writeRoute } from "./route.js";
import { Session } from "./session.js";
import { applyTheme } from "./settings.js";
import { read, write } from "./storage.js";
import { leaveTab } from "./tabid.js";
import { Tabs } from "./tabs.js";
import { fetchGraphemes } from "./terminal.js";
import { typeface } from "./themes.js";

const SHOWN_KEY = "sshgate.shown";
const REFRESH_MS = 20_000;
const NOTICED_MS = 300;
const RANG = "The bell rang.";
/** @type {Record<string, string>} */
const SPOKEN = { idle: "not attached", elsewhere: "elsewhere, in another window" };

/** @typedef {{profile: string | null, name: string | null, held?: import("./api.js").Held | null, title?: string, id?: string | null}} Wanted */

class Page {
  /** @param {import("./api.js").Me} me */
  constructor(me) {
    this._me = me;
    /** @type {import("./actions.js").Hands} */
    this._hands = {
      me,
      shown: () => this.shown,
      tabs: () => [...this.sessions.values()].map((each) => ({ label: this._nameOf(each), select: () => this._layouts.select(each), bring: this._bringing(each) })),
      create: (wanted) => this.create(wanted),
      choose: () => this._choose(),
      home: () => this._goHome(),
      leave: () => this._tabs.focus(),
      turn: (step) => this._tabs.turn(step),
      split: (across) => this.split(across),
      parts: () => this._layouts.split,
      apart: () => this.shown && this._layouts.apart(this.shown),
      close: () => this._close(this.shown ? [this.shown] : []),
      upload: () => byId("upload-files").click(),
      download: () => this._download(),
      files: () => toggleFiles(() => this.shown),
    };
    this._keyed = (/** @type {KeyboardEvent} */ event) => keyed(this._hands, event);
    takePageKeys(this._keyed);
    bindButtons(this._hands);
    bindMenu(this._hands);
    /** Ended from here: the gateway lists them until they are cleaned up. @type {Set<string>} */
    this._done = new Set();
    /** When each session's call was noticed. @type {Map<string, number>} */
    this._noticed = new Map();
    /** Whether one without a tab has called since the home page was looked at. */
    this._callsFromHome = false;
    this._asking = false;
    /** @type {Map<HTMLElement, Session>} */
    this.sessions = new Map();
    this._panels = byId("panels");
    this._tabs = new Tabs((panel) => this._show(panel), (panel) => void this._close(this._layouts.all.get(panel)?.sessions ?? []));
    this._layouts = new Layouts(this._tabs, this._panels, { moved: () => this._moved(), close: (session) => void this._close([session]) });
    this._home = new Home((described) => this._reopen(described), () => this._refresh(), (name) => this.create({ profile: null, name }));
    /** @type {import("./api.js").Described[]} */
    this._listed = [];
    this._held = new HeldList(
      (sandbox, name) => this.create({ profile: null, name: sandbox, held: { name, id: "" } }),
      (sandbox, name) => this._knows(sandbox, name),
    );
    this._keybar = new KeyBar(() => this.shown?.screen ?? null);
    /** @type {HTMLInputElement} */
    const files = byId("upload-files");
    files.addEventListener("change", () => {
      this._upload([...(files.files ?? [])]);
      files.value = "";
    });
    byId("tabs").addEventListener("pointerdown", (event) => drag(event, this._layouts));
    takeDrops(this._panels, (files, typed) => {
      if (typed && this.shown) typeFiles(this.shown, files, typeDropped);
      else this._upload(files);
    });
    window.addEventListener("pagehide", () => {
      leaveTab();
      this.sessions.forEach((session) => session.leave());
    });
    document.addEventListener("visibilitychange", () => void this._refresh());
    window.addEventListener("focus", () => (this._lookedAt(), void this._refresh()));
    setInterval(() => void this._refresh(), REFRESH_MS);
  }

  /** @type {Session | undefined} */
  get shown() {
    return this._layouts.shown?.focused;
  }

  async list(get = call) {
    const { sessions } = await get("sessions");
    if (!this._making) this._take(sessions);
  }

  /** The list has changed. @param {import("./api.js").Described[]} sessions */
  followed(sessions) {
    if (this._making) setTimeout(() => void this._refresh(), NOTICED_MS);
    else this._take(sessions);
  }

  /** One that is being made has no id yet: in a list it would be taken for another. */
  get _making() {
    return [...this.sessions.values()].some(({ state, id }) => state === "starting" && id === null);
  }

  /**
   * Tabs for the sessions that the server has, but for those that ended, or that this tab was to leave running.
   *
   * @param {import("./api.js").Described[]} listed
   */
  _take(listed) {
    const sessions = listed.filter(({ id }) => !this._done.has(id));
    const known = new Set([...this.sessions.values()].map(({ id }) => id));
    const shown = read("sessionStorage", SHOWN_KEY);
    for (const described of sessions) {
      const { id, state, name, held } = described;
      const wanted = !isLeft(id) && (state !== "ended" || id === shown);
      // One that this page is about to join again, by another id.
      const here = held !== null && [...this.sessions.values()].some((one) => one.name === name && one.held?.name === held.name);
      if (!known.has(id) && wanted && !here) this._add(described).adopt(described);
    }
    const alive = new Map(sessions.filter(({ state }) => state !== "ended").map((one) => [one.id, one]));
    for (const session of this.sessions.values()) {
      session.listed(alive.get(session.id ?? ""));
      if (session.state !== "idle") continue;
      const same = [...alive.values()].find(({ name, held }) => held && name === session.name && held.name === session.held?.name);
      const described = alive.get(session.id ?? "") ?? same;
      if (described) session.adopt(described);
    }
    this._listed = [...alive.values()];
    const unlisted = [...this.sessions.values()].filter((session) => this._unlisted(session) && (session.id === null || session.id !== shown));
    void this._held.forsake(unlisted, (session) => this._unlisted(session), (session) => this._drop(session));
    this._home.show(sessions, new Map([...this.sessions.values()].map((one) => [one.id, { name: this._nameOf(one), state: one.state }])));
    for (const described of sessions) this._attend(described);
  }

  /** A tab that is not attached, whose session this gateway does not have. @param {Session} session */
  _unlisted({ panel, state, id, held }) {
    const idle = this.sessions.has(panel) && state === "idle" && (id !== null || held !== null);
    return idle && !this._listed.some((one) => one.id === id);
  }

  /** A session's program has called while nobody was attached. @param {import("./api.js").Described} described */
  _attend(described) {
    const { id, label, title, name, profile, attention, attached } = described;
    if (!attention || attached || attention.at <= (this._noticed.get(id) ?? 0)) return;
    this._noticed.set(id, attention.at);
    const session = [...this.sessions.values()].find((session) => session.id === id);
    if (session) {
      this._called(session, attention.text);
      return;
    }
    this._callsFromHome = this.shown !== undefined || !watched();
    this._describe();
    showOnDesktop(id, label || title || ownName(name) || profile, attention.text || RANG, () => this._reopen(described));
  }

  /**
   * @param {Session} session
   * @param {string} text
   */
  _called(session, text) {
    if (this._layouts.of(session)?.sees(session) && watched()) return;
    if (!session.waits) {
      session.waits = true;
      this._changed(session);
      this._describe();
    }
    if (session.id !== null) showOnDesktop(session.id, this._nameOf(session), text || RANG, () => this._layouts.select(session));
  }

  /** The person sees what is shown. */
  _lookedAt() {
    const { shown } = this._layouts;
    for (const session of shown?.sessions ?? []) if (shown?.sees(session)) session.waits = false;
    if (!shown) this._callsFromHome = false;
    this._describeTabs();
    this._describe();
  }

  /** @param {Session} session its tab goes */
  _drop(session) {
    this.sessions.delete(session.panel);
    session.dispose();
    this._layouts.remove(session);
    this._describeTabs();
  }

  async _refresh() {
    if (document.hidden || this._making) return;
    try {
      await this.list();
    } catch {
      // What is shown has its own connection, and its bar has the reason.
    }
  }

  /** Show what the address leads to, what was shown before a reload, or the first one that no other window has. What this gateway does not know is joined when it is shown. */
  async restore() {
    const { user } = this._me;
    const shown = read("sessionStorage", SHOWN_KEY);
    const route = readRoute();
    let last = [...this.sessions.values()].find(({ id }) => id === shown);
    if (last && (!route || leadsTo(route, last))) this._layouts.select(last);
    for (const place of await recallPlaces(user, (sandbox, name) => this._knows(sandbox, name))) {
      const session = this._add(place);
      if (place.id === shown) last = session;
    }
    // Not earlier: what is remembered is to be read first.
    const remember = () => (rememberPlaces(user, this.sessions.values()), this._layouts.remember());
    this._layouts.settle();
    window.addEventListener("pagehide", remember);
    document.addEventListener("visibilitychange", () => document.hidden && remember());
    followRoutes((route) => this._go(route));
    const led = route && this._led(route);
    const session = led ?? last ?? [...this.sessions.values()].find(({ away }) => !away);
    // A person may have opened one meanwhile.
    if (session && !this.shown) this._layouts.select(session);
    else if (!session) this._tabs.select(null);
    // One that has ended, and had the address because it was shown, is nothing new.
    if (route && !led && route.id !== shown) this._ask(route);
  }

  /** The tab to which an address leads; for one that runs without, it is made. @param {import("./route.js").Route} route */
  _led(route) {
    const runs = this._listed.find((one) => leadsTo(route, one));
    return [...this.sessions.values()].find((one) => leadsTo(route, one)) ?? (runs && this._tabFor(runs));
  }

  /** @param {import("./route.js").Route} route */
  _go(route) {
    const session = this._led(route);
    if (session) this._layouts.select(session);
    else this._ask(route);
  }

  /** What is not there is made only if the person wants it. @param {import("./route.js").Route} route */
  _ask({ sandbox, wanted }) {
    this._remember();
    if (!sandbox && !wanted) return complain("The terminal of this address has ended, or is another user's.");
    const { profile, name } = wanted ?? { profile: undefined, name: sandbox ?? null };
    const there = this._me.profiles.some((one) => one.name === profile);
    if (profile && !there) complain("The address names a profile that you do not have.");
    if (!document.querySelector("dialog[open]")) void this._choose({ profile: there ? profile : undefined, name });
  }

  /**
   * @param {string} sandbox
   * @param {string} name of a held session in it
   */
  _knows(sandbox, name) {
    return [...this._listed, ...this.sessions.values()].some((one) => one.name === sandbox && one.held?.name === name);
  }

  /** @param {{profile: string | null, name: string | null, held?: import("./api.js").Held}} [wanted] */
  create(wanted = { profile: null, name: null }) {
    this._layouts.select(this._add(wanted));
  }

  /** Another terminal in the sandbox of the one that has the focus, and in its tab. @param {boolean} across beside it, or else below */
  split(across) {
    const { shown } = this._layouts;
    const from = shown?.focused;
    // One that is being ended has its tab for a moment longer.
    if (!shown || from?.state !== "connected" || !this.sessions.has(from.panel)) return complain("No sandbox runs here for another terminal.");
    if (shown.sessions.length >= MOST) return complain(`A tab has ${MOST} terminals at most.`);
    const session = this._make({ profile: from.profile, name: ownName(from.name) });
    session.kin = from.kin;
    shown.split(session, across);
    shown.show();
  }

  /** @param {Session} session of another tab */
  _bringing(session) {
    const { shown } = this._layouts;
    return shown && this._layouts.of(session) !== shown && (() => bring(session, this._layouts));
  }

  /** The id of one that runs in the sandbox of another, or did. @param {Session} session */
  _beside({ panel, kin, name }) {
    const given = name !== null && ownName(name) === null;
    const others = [...this.sessions.values()].filter((other) => other.panel !== panel && other.state === "connected");
    return others.find((other) => other.kin === kin || (given && other.name === name))?.id ?? null;
  }

  /** @param {Wanted} wanted */
  _add(wanted) {
    const session = this._make(wanted);
    this._layouts.add(session, wanted);
    this._changed(session);
    return session;
  }

  /** @param {Wanted} wanted */
  _make(wanted) {
    const session = new Session(
      {
        changed: (session) => this._changed(session),
        called: (session, text) => this._called(session, text),
        missed: (described) => this._attend(described),
        close: (session) => void this._close([session]),
        beside: (session) => this._beside(session),
        withHeldKeys: (typed) => this._keybar.apply(typed),
        change: (session) => void this._change(session),
        login: () => location.reload(),
        openPort: (url, name) => void askAboutPort(url, name && `${this._me.user}=${name}`, this._me.ssh_port),
        keyed: this._keyed,
      },
      wanted,
      this._freeNumber(),
    );
    this.sessions.set(session.panel, session);
    return session;
  }

  /** @param {HTMLElement | null} panel */
  _show(panel) {
    byId("welcome").hidden = panel !== null;
    this._layouts.turnedTo(panel);
    this._moved();
    if (panel) return;
    byId("first-session").focus();
    void this._held.look();
    void this._home.look();
  }

  /** Another terminal has the focus. */
  _moved() {
    this._remember();
    this._lookedAt();
  }

  /** The smallest number that no tab has. */
  _freeNumber() {
    const taken = new Set([...this.sessions.values()].map(({ number }) => number));
    let free = 1;
    while (taken.has(free)) free += 1;
    return free;
  }

  /** What a session is called among all that have a tab. @param {Session} session */
  _nameOf({ label, number }) {
    return [...this.sessions.values()].filter((other) => other.label === label).length > 1 ? `${label} ${number}` : label;
  }

  /** Another label of one may make those of others alike, or no longer. */
  _describeTabs() {
    for (const layout of this._layouts.all.values()) {
      const { panel, sessions, focused } = layout;
      const { progress, near } = focused;
      const state = focused.away ? "elsewhere" : focused.state;
      const spoken = [SPOKEN[state] ?? state, near.words].filter(Boolean).join(", ");
      for (const session of sessions) layout.describe(session, this._nameOf(session));
      const label = sessions.map((session) => this._nameOf(session)).join(" | ");
      this._tabs.describe(panel, { label, state, spoken, clock: near.short, waits: sessions.some(({ waits }) => waits), progress });
    }
  }

  /** @param {Session} session */
  _changed(session) {
    this._describeTabs();
    if (session === this.shown) {
      this._remember();
      this._describe();
    }
  }

  _remember() {
    if (this.shown?.id) write("sessionStorage", SHOWN_KEY, this.shown.id);
    writeRoute(this.shown, this.sessions.values());
  }

  /** The window's title, and which tools are of use. */
  _describe() {
    const { shown } = this;
    const waiting = this._callsFromHome || [...this.sessions.values()].some(({ waits }) => waits);
    document.title = `${waiting ? "● " : ""}${shown ? `${this._nameOf(shown)} · ` : ""}sshgate`;
    markIcon(waiting);
    byId("tools").hidden = shown === undefined;
    filesChanged();
    refreshButtons(this._hands);
  }

  /** @param {Session[]} sessions of one tab */
  async _close(sessions) {
    const live = sessions.filter((session) => session.live);
    const answer = live.length ? await askToClose(live.length) : "end";
    if (answer === "cancel") return this.shown?.screen?.focus();
    for (const { panel, id } of sessions) {
      this.sessions.delete(panel);
      if (answer === "end" && id) this._done.add(id);
      if (answer === "leave" && id) setLeft(id, true);
    }
    const close = async (/** @type {Session} */ session) => {
      try {
        if (answer === "end") await session.end();
      } catch (error) {
        // It may go on: the next list brings it back.
        this._done.delete(session.id ?? "");
        complain(sentence(error));
      }
      this._drop(session);
    };
    await Promise.all(sessions.map(close));
    // The gateway takes a moment to notice.
    setTimeout(() => void this._refresh(), NOTICED_MS);
  }

  /** A tab for one that runs without. @param {import("./api.js").Described} described */
  _tabFor(described) {
    setLeft(described.id, false);
    // A notification may be older than its tab.
    let session = [...this.sessions.values()].find(({ id }) => id === described.id);
    if (!session) (session = this._add(described)).adopt(described);
    return session;
  }

  /** @param {import("./api.js").Described} described */
  _reopen(described) {
    this._layouts.select(this._tabFor(described));
  }

  async _goHome() {
    this._tabs.select(null);
    await this._refresh();
  }

  /** @param {{profile?: string | null, name: string | null}} [before] */
  async _choose(before) {
    const wanted = await askForSession(this._me.profiles, before);
    if (wanted) this.create(wanted);
    else this.shown?.screen?.focus();
  }

  /** Another profile or name in the place of one that did not start. @param {Session} session */
  async _change(session) {
    const wanted = await askForSession(this._me.profiles, session);
    if (wanted) void Object.assign(session, wanted, { title: "", kin: {} }).create();
    session.screen?.focus();
  }

  /** @param {File[]} files */
  _upload(files) {
    const { shown } = this;
    if (shown?.id && shown.state === "connected") void upload(shown.id, files);
    else complain("No sandbox runs here to upload to.");
  }

  async _download() {
    const id = this.shown?.id;
    const path = await askForPath();
    if (id && path) await download(id, path);
    this.shown?.screen?.focus();
  }
}

/** @param {string | null} ticket */
async function begin(ticket) {
  applyTheme();
  followViewport();
  followLoginLinks();
  const [me] = await Promise.all([loggedIn(ticket), typeface(), fetchGraphemes()]);
  describeUser(me);
  fillKeys(byId("home-keys"));
  byId("loading").hidden = true;
  byId("frame").hidden = false;
  const page = new Page(me);
  const again = { label: "Try again", act: () => location.reload() };
  const late = setTimeout(() => notify("The gateway takes long to list your terminals.", again), LATE_MS);
  await page.list(persistently).finally(() => clearTimeout(late));
  await page.restore();
  follow(me.user, (sessions) => page.followed(sessions));
  // For the browser's console, and for tests.
  Object.assign(globalThis, { sshgate: page });
}

begin(takeTicket()).catch((error) => {
  byId("loading").hidden = byId("frame").hidden = true;
  byId("failure").hidden = false;
  byId("failure-text").textContent = sentence(error);
});
