/** One session in its panel: a terminal, its line to the gateway, and what passes between the two. */

import { typeFiles, typePasted } from "./agentinput.js";
import { ring, watch } from "./attention.js";
import { asSentence, call, ending, ownName, Refused, sentence } from "./api.js";
import { elsewhere, nearEnd } from "./home.js";
import { Connection } from "./connection.js";
import { element } from "./dom.js";
import { abandon, endHeld } from "./held.js";
import { takeKeys } from "./keys.js";
import { complain } from "./notices.js";
import { Playback } from "./playback.js";
import { SearchBar } from "./search.js";
import { Backoff } from "./socket.js";
import { StateBar } from "./statebar.js";
import { Screen } from "./terminal.js";

const LONGEST_TITLE = 200;
// A program that sends titles or progress without end changes its tab this often.
const PAUSE_MS = 100;
// What is typed before the gateway has said hello, as a terminal keeps it before a program reads.
const AHEAD_BYTES = 64 << 10;

/**
 * @typedef {"idle" | "starting" | "connected" | "reconnecting" | "elsewhere" | "ended" | "failed"} State
 *
 * @typedef {object} Page what a session needs of the page
 * @property {(session: Session) => void} changed its label or state is another
 * @property {(session: Session, text: string) => void} called it wants to be noticed: it rang (no text), sent a notification, or ended
 * @property {(described: any) => void} missed what it wanted while the line was lost
 * @property {(session: Session) => void} close the person wants its tab gone
 * @property {(typed: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>} withHeldKeys
 * @property {(session: Session) => void} change the person wants another profile or name for it
 * @property {(session: Session) => string | null} beside the id of another one that runs in its sandbox
 * @property {() => void} login the login is over
 * @property {(url: URL, name: string | null) => void} openPort a link to the sandbox itself was opened
 * @property {import("./keys.js").Page} keyed
 */

let made = 0;

export class Session {
  /** The gateway has announced its end. */
  _draining = false;
  /** The person has no tab for it any more. */
  _closed = false;
  /** Made when the panel is first shown: a terminal needs a box that has a size. @type {Screen | undefined} */
  screen;
  /** @type {Playback | undefined} */
  _playback;
  /** @type {SearchBar | undefined} */
  _search;
  /** @type {{code: number | null, signal: string | null, reason: string | null, start?: boolean} | undefined} */
  _ended;
  /** As the list had it last. @type {import("./api.js").Described | undefined} */
  _listed;

  /**
   * @param {Page} page
   * @param {{profile: string | null, name: string | null, held?: import("./api.js").Held | null, title?: string}} wanted
   * @param {number} number
   */
  constructor(page, { profile, name, held = null, title = "" }, number) {
    made += 1;
    /** Differs among those of one label. */
    this.number = number;
    this._page = page;
    this.profile = profile;
    this.name = name;
    this.held = held;
    this.title = title;
    /** What its user calls it. */
    this.given = "";
    /** An end that is near. */
    this.near = nearEnd({});
    /** Whether it has called since it was looked at. */
    this.waits = false;
    /** The same for all that were begun in one sandbox. */
    this.kin = {};
    /** What its program has reported of its work. @type {number | null} */
    this.progress = null;
    /** @type {string | null} */
    this.id = null;
    /** @type {State} */
    this.state = "idle";
    this.box = element("div", { className: "terminal" });
    this.panel = element("section", { className: "panel", id: `session-${made}` }, this.box);
    this._watchers = element("p", { className: "watchers", hidden: true, role: "status" });
    this.panel.append(this._watchers);
    this._bar = new StateBar(this.panel, () => this.screen?.focus());
    /** @type {Connection | null} */
    this._connection = null;
    /** Whether the gateway has said hello since this page has wanted the session. */
    this._greeted = false;
    /** Typed before that, for this session and no other. @type {Uint8Array<ArrayBuffer>[]} */
    this._ahead = [];
    this._timer = this._joining = 0;
    this._backoff = new Backoff();
    /** @type {string | null} */
    this._sent = null;
    /** Whether what is replayed is new to this terminal. */
    this._resumed = false;
  }

  /** What its tab is called: the program's title, and the sandbox's name. The page adds numbers to those of one label. */
  get label() {
    return this.given || [this.title, ownName(this.name)].filter(Boolean).join(" · ") || this.profile || "terminal";
  }

  get live() {
    if (this.id === null) return ["idle", "reconnecting"].includes(this.state) && this.held !== null;
    return this.state !== "ended" && this.state !== "failed";
  }

  /** Another window has it, which this one would find out only by trying. */
  get away() {
    return this.state === "idle" && this._listed?.attached === true;
  }

  /** Its panel is visible now. What needs a visible box is made only here, and what the server does not have yet. */
  shown(focuses = true) {
    this.screen ??= this._makeScreen();
    this.screen.show(focuses);
    if (this.state !== "idle") return;
    if (this.id !== null) this._connect();
    else void this.create();
  }

  hidden() {
    this.screen?.hide();
  }

  search() {
    if (!this.screen || this._closed) return;
    this._search ??= new SearchBar(this.panel, this.screen);
    this._search.open();
  }

  /**
   * One that the server has already; it is attached when its tab is shown.
   *
   * @param {import("./api.js").Described} described
   */
  adopt(described) {
    const { id, profile, name, title, label, held } = described;
    Object.assign(this, { id, profile, name, title, given: label ?? "", held: held ?? this.held, _listed: described });
    this._page.changed(this);
  }

  /** What changes while it is attached. @param {import("./api.js").Described | undefined} described as the list has it now */
  listed(described) {
    if (described) this._connection?.listed(described.attached);
    const given = described?.label ?? this.given;
    const near = nearEnd(described?.ends ?? {});
    const alike = given === this.given && near.words === this.near.words && described?.attached === this._listed?.attached;
    Object.assign(this, { given, near, _listed: described });
    if (alike) return;
    this._page.changed(this);
  }

  /** Make a new one on the server, with this panel's size. The panel is visible. */
  async create() {
    this._end();
    const beside = this._page.beside(this);
    // The sandbox that the gateway named has ended with its last session.
    if (this.id !== null && !this.held && !beside) this.name = ownName(this.name);
    this.id = null;
    this._ended = undefined;
    this._become("starting");
    this._bar.show("Starting …", [], { dim: false, soon: true });
    const size = this.screen?.size ?? {};
    const begun = !this.held;
    try {
      const { ticket, ...described } = await (beside && !this.held ? call("sessions", "POST", { beside, ...size }) : this._made(size));
      if (this._closed) return await abandon(described.id, begun);
      this.adopt(described);
      this._connect({ ticket });
    } catch (error) {
      if (!this._closed) this._failed(error);
    }
  }

  /** @param {object} more */
  _made(more) {
    const { profile, name, held } = this;
    const joined = name && held && { session: held.name, ...(held.id && { held: held.id }) };
    const lasting = name ? {} : { lasting: true };
    return call("sessions", "POST", { ...lasting, ...(profile && { profile }), ...(name && { name }), ...joined, ...more });
  }

  /** Join it again by another gateway, which does not know of this page. */
  async _rejoined() {
    if (!this.held || !this.name || this._closed) return null;
    const { id, ticket } = await this._made({});
    if (this._closed) await abandon(id, false);
    else this.id = id;
    this._page.changed(this);
    return { id, ticket };
  }

  /** End it on the server, with its sandbox unless that is a named one. */
  async end() {
    const { id, name, held, live, state } = this;
    this._closed = true;
    this._end();
    if (id !== null) await call(`sessions/${encodeURIComponent(id)}`, "DELETE");
    // Another gateway knows nothing of that id, and what is held goes on.
    if (live && name && held && (id === null || state === "reconnecting")) await endHeld(name, held.name);
  }

  /** Let go of it; on the server it goes on. */
  dispose() {
    this._closed = true;
    this._end();
    this.screen?.dispose();
  }

  /** The page goes: what the terminal holds is the fastest way back. */
  leave() {
    this._playback?.snapshot();
  }

  _makeScreen() {
    const live = () => !screen.muted || this._resumed;
    const screen = new Screen(this.box, {
      input: (bytes) => this._typed(bytes),
      resized: (size) => this._playback?.restoring || this._connection?.send({ type: "resize", ...size }),
      titled: (title) => this._titled(title),
      local: (url) => this._page.openPort(url, this.name),
      pasted: (files) => typeFiles(this, files, typePasted),
      rang: () => live() && (ring(this.panel), this._page.called(this, "")),
    });
    watch(screen.terminal, live, {
      called: (text) => this._page.called(this, text),
      progressed: (percent) => {
        if (percent === this.progress) return;
        this.progress = percent;
        this._changedSoon();
      },
    });
    takeKeys(screen.terminal, this._page.keyed);
    this._playback = new Playback(screen, (frame) => this._connection?.send(frame), (offset) => this._connection?.parsed(offset));
    return screen;
  }

  /** @param {Parameters<Connection["connect"]>[0]} [how] */
  _connect(how) {
    const { id, screen, _playback: playback } = this;
    if (id === null || !screen || !playback) return;
    if (this._connection === null) {
      playback.forget();
      this._connection = new Connection(id, {
        size: () => screen.size,
        rejoined: () => this._rejoined(),
        held: () => playback.held,
        staged: (stage, words, seconds) => this._staged(stage, words, seconds),
        control: (frame) => this._control(frame),
        printed: (bytes) => playback.printed(bytes),
      });
    }
    this._connection.connect(how);
  }

  _end() {
    clearTimeout(this._joining);
    this._connection?.close();
    this._connection = null;
    this._forgetTyped();
  }

  _forgetTyped() {
    this._greeted = false;
    this._ahead = [];
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  _typed(bytes) {
    const { state } = this;
    if (state === "reconnecting" && this._greeted) this._bar.warn("Not connected; keys are not sent.");
    else if (["connected", "starting", "reconnecting"].includes(state)) this._type(this._page.withHeldKeys(bytes));
    else if (["ended", "failed"].includes(state) && bytes.length === 1 && bytes[0] === 13) void this.create();
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  _type(bytes) {
    if (this._greeted) return this._connection?.type(bytes);
    const kept = this._ahead.reduce((sum, { length }) => sum + length, bytes.length);
    if (kept <= AHEAD_BYTES) this._ahead.push(bytes);
    else complain("This is not sent: the terminal is not connected yet.");
  }

  /** @param {string} title */
  _titled(title) {
    // textContent and JSON take it as it is; invisible characters have no place in a tab.
    this.title = title.replaceAll(/\p{C}/gu, "").slice(0, LONGEST_TITLE);
    this._changedSoon();
  }

  _changedSoon() {
    this._timer ||= setTimeout(() => {
      this._timer = 0;
      this._page.changed(this);
      if (this.title === this._sent || this.state !== "connected" || this._playback?.restoring) return;
      this._connection?.send({ type: "title", text: (this._sent = this.title) });
    }, PAUSE_MS);
  }

  /** @param {any} frame */
  _control(frame) {
    switch (frame.type) {
      case "hello":
        this._greeted = true;
        for (const bytes of this._ahead.splice(0)) this._connection?.type(bytes);
        this.profile = frame.profile;
        this.name = frame.name;
        this.held = frame.held ?? this.held;
        this._draining = false;
        this._backoff.reset();
        this._watchedFrom([]);
        this._resumed = frame.start === "resume";
        this._playback?.begin(frame);
        this._running(frame.state);
        this._page.missed({ ...frame, id: this.id });
        break;
      case "snapshot":
        this._playback?.restore(frame);
        break;
      case "replay":
        this._playback?.replay(frame.until);
        break;
      case "snapshot_wanted":
        this._playback?.snapshotSoon();
        break;
      case "state":
        this.held = frame.held;
        this._running(frame.state);
        break;
      case "notice":
        if (this._draining) break; // the bar says what follows from it
        if (frame.text) this._bar.show(asSentence(frame.text), [{ label: "OK", act: () => this._bar.hide() }], { dim: false });
        else this._bar.hide();
        break;
      case "watchers":
        this._watchedFrom(frame.sources);
        break;
      case "exit":
        this._ended = frame;
        break;
      case "drain":
        this._draining = true;
        this._bar.show("The gateway is restarting; this page will reconnect.", [], { dim: false });
        break;
    }
  }

  /** @param {string[]} sources the addresses of who watches by a link */
  _watchedFrom(sources) {
    this._watchers.hidden = sources.length === 0;
    this._watchers.textContent = `Watched from ${sources.join(", ")}`;
  }

  /** @param {string} state */
  _running(state) {
    if (state === "ended") return; // its `exit` comes
    // The progress of a start stands in the terminal, as over ssh.
    this._bar.hide();
    this._become(state === "running" ? "connected" : "starting");
  }

  /**
   * @param {import("./connection.js").Stage} stage
   * @param {string} words
   * @param {number} seconds
   */
  _staged(stage, words, seconds) {
    const takeOver = { label: "Take over", act: () => this._connect({ takeOver: true }) };
    const again = { label: "New terminal", act: () => void this.create() };
    switch (stage) {
      case "connecting":
        this._become(this.state === "reconnecting" ? "reconnecting" : "starting");
        this._bar.show("Connecting …", [], { dim: this.state === "reconnecting", soon: true });
        return;
      case "attached":
        if (this.state === "connected") this._bar.hide();
        return; // what it is at, `hello` has in it
      case "silent":
        this._bar.show(`No answer from the gateway for ${seconds} s.`, [], { dim: false });
        return;
      case "waiting":
        this._become("reconnecting");
        this._bar.show(
          `${words || "The connection is lost."} Trying again in`,
          [{ label: "Now", act: () => this._connection?.hurry() }],
          { seconds: Math.ceil(seconds) },
        );
        return;
      case "finished":
        this._finished();
        return;
      case "elsewhere":
      case "taken":
        this._forgetTyped();
        this._become("elsewhere");
        if (stage === "elsewhere") this._bar.show(elsewhere(this._listed), [takeOver]);
        else this._bar.show("Another window has taken over this terminal.", [{ ...takeOver, label: "Take it back" }]);
        return;
      case "login":
        this._page.login();
        return;
      case "gone":
        this._gone();
        return;
      case "refused":
        this._become("failed");
        this._bar.show(words || "The gateway has refused this terminal.", [again]);
    }
  }

  _finished() {
    this._end();
    // A program that has ended is not joined again; one that the gateway has only lost goes on.
    if (!this._ended?.start && (this._ended?.code != null || this._ended?.signal)) this.held = null;
    if (this._ended?.start) {
      this._notStarted(ending(this._ended));
      return;
    }
    this._become("ended");
    this._page.called(this, ending(this._ended));
    this._bar.show(`${ending(this._ended)} Enter ${this.held ? "joins it" : "starts"} again.`, [
      { label: this.held ? "Join again" : "Start again", act: () => void this.create() },
      { label: "Close", act: () => this._page.close(this) },
    ], { dim: false });
  }

  /** The gateway no longer knows it. A sandbox that has a name from its user is joined by that; any other is lost. */
  _gone() {
    this._end();
    if (ownName(this.name) === null) this.held = null;
    else if (this.state === "reconnecting") {
      void this.create();
      return;
    }
    this._become("ended");
    this._bar.show("This terminal is gone. Enter starts a new one.", [
      { label: "New terminal", act: () => void this.create() },
      { label: "Close", act: () => this._page.close(this) },
    ]);
  }

  /** @param {unknown} error */
  _failed(error) {
    if (error instanceof Refused && error.status === 401) {
      this._page.login();
      return;
    }
    if (error instanceof Refused && error.passing && this.held) {
      // It goes on, and the gateway may be starting.
      const seconds = this._backoff.take();
      const again = () => {
        const ahead = this._ahead;
        void this.create();
        this._ahead = ahead; // it joins the same one
      };
      this._joining = setTimeout(again, seconds * 1000);
      this._become("reconnecting");
      return this._bar.show(`${sentence(error)} Trying again in`, [{ label: "Now", act: again }], { seconds: Math.ceil(seconds) });
    }
    if (error instanceof Refused && error.status === 404) this.held = null; // what it was to join is gone
    this._notStarted(sentence(error));
  }

  /** @param {string} words */
  _notStarted(words) {
    this._become("failed");
    this._page.called(this, words);
    this._bar.show(words, [
      { label: "Try again", act: () => void this.create() },
      { label: "Change …", act: () => this._page.change(this) },
      { label: "Close", act: () => this._page.close(this) },
    ], { dim: false });
  }

  /** @param {State} state */
  _become(state) {
    this.state = state;
    if (state === "ended" || state === "failed") this.progress = null;
    this.panel.dataset["state"] = state;
    this._page.changed(this);
  }
}
