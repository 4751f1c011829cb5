/** The page: who is logged in, which sessions there are, which one is shown. */

import { typeDropped } from "./agentinput.js";
import { call, ownName, sentence } from "./api.js";
import { markIcon, showOnDesktop, watched } from "./attention.js";
import { askForPath, askForSession, askToClose } from "./dialogs.js";
import { byId } from "./dom.js";
import { download, takeDrops, upload } from "./files.js";
import { follow } from "./follow.js";
import { followViewport, KeyBar } from "./keybar.js";
import { goingOn, HeldList, recallPlaces, rememberPlaces } from "./held.js";
import { Home } from "./home.js";
import { takePageKeys } from "./keys.js";
import { askAboutPort } from "./links.js";
import { followLoginLinks, loggedIn, takeTicket } from "./login.js";
import { fillHome, fillMenu, fillMore } from "./menu.js";
import { complain } from "./notices.js";
import { Session } from "./session.js";
import { applyTheme } from "./settings.js";
import { leaveTab } from "./tabid.js";
import { Tabs } from "./tabs.js";
import { typeface } from "./themes.js";

const SHOWN_KEY = "sshgate.shown";
const LEFT_KEY = "sshgate.left";
const REFRESH_MS = 20_000;
const NOTICED_MS = 300;
const RANG = "The bell rang.";
/** @type {Record<string, string>} */
const SPOKEN = { idle: "not attached", elsewhere: "elsewhere, in another window" };

/** @returns {string[]} the sessions that have no tab here, by the person's choice */
function left() {
  try {
    return JSON.parse(sessionStorage.getItem(LEFT_KEY) ?? "[]");
  } catch {
    return [];
  }
}

class Page {
  /** @param {import("./api.js").Me} me */
  constructor(me) {
    this._me = me;
    /** @type {import("./keys.js").Actions} */
    this._actions = {
      search: () => this.shown?.search(),
      leave: () => this._tabs.focus(),
      create: () => this.create(),
      turn: (step) => this._tabs.turn(step),
    };
    takePageKeys(this._actions);
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
    this._tabs = new Tabs((panel) => this._show(panel), (panel) => void this._close(panel));
    this._home = new Home((described) => this._reopen(described), () => this._refresh());
    /** @type {import("./api.js").Described[]} */
    this._listed = [];
    this._held = new HeldList(
      (sandbox, name) => this.create({ profile: null, name: sandbox, held: { name, id: "" } }),
      (sandbox, name) => this._knows(sandbox, name),
    );
    this._keybar = new KeyBar(() => this.shown?.screen ?? null);
    this._bindButtons();
    takeDrops(this._panels, (files, typed) => {
      if (typed && this.shown) this.shown.typeFiles(files, typeDropped);
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
    const panel = this._tabs.shown;
    return panel ? this.sessions.get(panel) : undefined;
  }

  async list() {
    const { sessions } = await call("sessions");
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
    const shown = sessionStorage.getItem(SHOWN_KEY);
    for (const described of sessions) {
      const { id, state, name, held } = described;
      const wanted = !left().includes(id) && (state !== "ended" || id === shown);
      // One that this page is about to join again, by another id.
      const here = held !== null && [...this.sessions.values()].some((one) => one.name === name && one.held?.name === held.name);
      if (!known.has(id) && wanted && !here) this._add(described).adopt(described);
    }
    const alive = new Map(sessions.filter(({ state }) => state !== "ended").map((one) => [one.id, one]));
    for (const session of this.sessions.values()) {
      if (session.state !== "idle") continue;
      const same = [...alive.values()].find(({ name, held }) => held && name === session.name && held.name === session.held?.name);
      const described = alive.get(session.id ?? "") ?? same;
      if (described) session.adopt(described);
    }
    this._listed = [...alive.values()];
    void this._forsake([...this.sessions.values()].filter((session) => this._unlisted(session) && session.id !== shown));
    this._home.show(sessions.filter(({ id }) => ![...this.sessions.values()].some((session) => session.id === id)));
    for (const described of sessions) this._attend(described);
  }

  /** A tab that is not attached, whose id this gateway does not have. @param {Session} session */
  _unlisted({ state, id }) {
    return state === "idle" && id !== null && !this._listed.some((one) => one.id === id);
  }

  /** Their tabs go, but for what a sandbox holds: another gateway has had that, and it is joined when it is shown. @param {Session[]} sessions */
  async _forsake(sessions) {
    if (this._asking || sessions.length === 0) return;
    this._asking = true;
    try {
      const on = await goingOn(sessions);
      for (const session of sessions) {
        if (this.sessions.get(session.panel) !== session || !this._unlisted(session)) continue;
        if (on.includes(session)) session.id = null;
        else this._drop(session);
      }
    } catch {
      // The next list asks again.
    } finally {
      this._asking = false;
    }
  }

  /** A session's program has called while nobody was attached. @param {import("./api.js").Described} described */
  _attend(described) {
    const { id, title, name, profile, attention, attached } = described;
    if (!attention || attached || attention.at <= (this._noticed.get(id) ?? 0)) return;
    this._noticed.set(id, attention.at);
    const session = [...this.sessions.values()].find((session) => session.id === id);
    if (session) {
      this._called(session, attention.text);
      return;
    }
    this._callsFromHome = this.shown !== undefined || !watched();
    this._describe();
    showOnDesktop(id, title || ownName(name) || profile, attention.text || RANG, () => this._reopen(described));
  }

  /**
   * @param {Session} session
   * @param {string} text
   */
  _called(session, text) {
    if (session === this.shown && watched()) return;
    if (!session.waits) {
      session.waits = true;
      this._changed(session);
      this._describe();
    }
    if (session.id !== null) showOnDesktop(session.id, this._nameOf(session), text || RANG, () => this._tabs.select(session.panel));
  }

  /** The person sees what is shown. */
  _lookedAt() {
    if (this.shown) this.shown.waits = false;
    else this._callsFromHome = false;
    this._describeTabs();
    this._describe();
  }

  /** @param {Session} session its tab goes */
  _drop(session) {
    this.sessions.delete(session.panel);
    session.dispose();
    this._tabs.remove(session.panel);
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

  /** Show what was shown before a reload, or the first one. What this gateway does not know is joined when it is shown. */
  async restore() {
    const { user } = this._me;
    const shown = sessionStorage.getItem(SHOWN_KEY);
    let last = [...this.sessions.values()].find(({ id }) => id === shown);
    if (last) this._tabs.select(last.panel);
    for (const place of await recallPlaces(user, (sandbox, name) => this._knows(sandbox, name))) {
      const session = this._add(place);
      if (place.id === shown) last = session;
    }
    const session = last ?? [...this.sessions.values()][0];
    // A person may have opened one meanwhile.
    if (session && !this.shown) this._tabs.select(session.panel);
    else if (!session) this._show(null);
    // Not earlier: what is remembered is to be read first.
    const remember = () => rememberPlaces(user, this.sessions.values());
    window.addEventListener("pagehide", remember);
    document.addEventListener("visibilitychange", () => document.hidden && remember());
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
    const session = this._add(wanted);
    this._tabs.select(session.panel);
  }

  /** @param {{profile: string | null, name: string | null, held?: import("./api.js").Held | null, title?: string}} wanted */
  _add(wanted) {
    const session = new Session(
      {
        changed: (session) => this._changed(session),
        called: (session, text) => this._called(session, text),
        missed: (described) => this._attend(described),
        close: ({ panel }) => void this._close(panel),
        withHeldKeys: (typed) => this._keybar.apply(typed),
        change: (session) => void this._change(session),
        login: () => location.reload(),
        openPort: (url, name) => void askAboutPort(url, name && `${this._me.user}=${name}`, this._me.ssh_port),
        actions: this._actions,
      },
      wanted,
      this._freeNumber(),
    );
    this.sessions.set(session.panel, session);
    this._panels.append(session.panel);
    this._tabs.add(session.panel);
    this._changed(session);
    return session;
  }

  /** @param {HTMLElement | null} panel */
  _show(panel) {
    for (const session of this.sessions.values()) if (session.panel !== panel) session.hidden();
    const session = panel ? this.sessions.get(panel) : undefined;
    byId("welcome").hidden = session !== undefined;
    session?.shown();
    this._remember();
    this._lookedAt();
    if (session) return;
    byId("first-session").focus();
    void this._held.look();
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
    for (const each of this.sessions.values()) {
      const { state, waits, progress } = each;
      this._tabs.describe(each.panel, { label: this._nameOf(each), state, spoken: SPOKEN[state] ?? state, waits, progress });
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
    if (this.shown?.id) sessionStorage.setItem(SHOWN_KEY, this.shown.id);
  }

  /** The window's title, and which tools are of use. */
  _describe() {
    const { shown } = this;
    const waiting = this._callsFromHome || [...this.sessions.values()].some(({ waits }) => waits);
    document.title = `${waiting ? "● " : ""}${shown ? `${this._nameOf(shown)} · ` : ""}sshgate`;
    markIcon(waiting);
    byId("tools").hidden = shown === undefined;
    for (const name of ["upload", "download"]) {
      /** @type {HTMLButtonElement} */ (byId(name)).disabled = shown?.state !== "connected";
    }
  }

  /** @param {HTMLElement} panel */
  async _close(panel) {
    const session = this.sessions.get(panel);
    if (!session) return;
    const answer = session.live ? await askToClose() : "end";
    if (answer === "cancel") return session.screen?.focus();
    this.sessions.delete(panel);
    if (answer === "end" && session.id) this._done.add(session.id);
    if (answer === "leave" && session.id) sessionStorage.setItem(LEFT_KEY, JSON.stringify([...left(), session.id]));
    try {
      if (answer === "end") await session.end();
    } catch (error) {
      complain(sentence(error));
    }
    this._drop(session);
    // The gateway takes a moment to notice.
    setTimeout(() => void this._refresh(), NOTICED_MS);
  }

  /** A tab for one that runs without. @param {import("./api.js").Described} described */
  _reopen(described) {
    sessionStorage.setItem(LEFT_KEY, JSON.stringify(left().filter((id) => id !== described.id)));
    // A notification may be older than its tab.
    let session = [...this.sessions.values()].find(({ id }) => id === described.id);
    if (!session) (session = this._add(described)).adopt(described);
    this._tabs.select(session.panel);
  }

  async _goHome() {
    this._tabs.select(null);
    await this._refresh();
  }

  _bindButtons() {
    /** @type {Record<string, () => unknown>} */
    const presses = {
      "new-session": () => this.create(),
      "new-with": () => this._choose(),
      "first-session": () => this.create(),
      home: () => this._goHome(),
      "choose-session": () => this._choose(),
      search: () => this.shown?.search(),
      upload: () => byId("upload-files").click(),
      download: () => this._download(),
    };
    for (const [id, press] of Object.entries(presses)) byId(id).addEventListener("click", () => void press());
    /** @type {HTMLInputElement} */
    const files = byId("upload-files");
    files.addEventListener("change", () => {
      this._upload([...(files.files ?? [])]);
      files.value = "";
    });
  }

  async _choose() {
    const wanted = await askForSession(this._me.profiles);
    if (wanted) this.create(wanted);
    else this.shown?.screen?.focus();
  }

  /** Another profile or name in the place of one that did not start. @param {Session} session */
  async _change(session) {
    const wanted = await askForSession(this._me.profiles, session);
    if (wanted) void Object.assign(session, wanted, { title: "" }).create();
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
  const [me] = await Promise.all([loggedIn(ticket), typeface()]);
  fillMenu(me);
  fillHome(me);
  fillMore();
  byId("loading").hidden = true;
  byId("frame").hidden = false;
  const page = new Page(me);
  await page.list();
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
