/** The page of who watches a session by a link: one terminal, no login. What may be done is decided by the server. */

import { actionOf } from "./actions.js";
import { asSentence } from "./api.js";
import { byId, element } from "./dom.js";
import { takeKeys } from "./keys.js";
import { Playback } from "./playback.js";
import { applyTheme, settings } from "./settings.js";
import { Backoff, Socket, Typing } from "./socket.js";
import { StateBar } from "./statebar.js";
import { read, write } from "./storage.js";
import { Screen } from "./terminal.js";
import { typeface } from "./themes.js";

// For a reload of this browser tab; the address never has it for long.
const KEY = "sshgate.watch";
const ACK_STEP = 64 << 10;
// The smallest letters that the settings have, and the smallest that a pinch makes so that all of a screen is in sight.
const LEGIBLE_FONT = 8;
const SMALLEST_FONT = 3;
const LARGEST_FONT = 32;
const SETTLED_MS = 5000;
/** Closed with a reason that another try does not change: a link that ended, a rule, a limit. */
const FINAL = [1000, 1008, 1009, 4401, 4429];

/** A terminal of the session's size, whatever the window's: its letters become smaller until it fits, or is legible. */
class WatchedScreen extends Screen {
  // The program is somebody else's.
  copies = false;
  _cols = 80;
  _rows = 24;
  /** What fingers have chosen. @type {number | null} */
  _chosen = null;

  /** @param {{cols: number, rows: number}} size */
  sized({ cols, rows }) {
    this._cols = cols;
    this._rows = rows;
    this.fit();
  }

  /** What is in the middle stays there. @param {number} fontSize */
  enlarge(fontSize) {
    const { box, terminal } = this;
    const before = terminal.options.fontSize ?? 1;
    this._chosen = fontSize;
    this.fit();
    const grown = (terminal.options.fontSize ?? 1) / before;
    if (grown === 1) return;
    const [x, y] = [box.clientWidth / 2, box.clientHeight / 2];
    box.scrollTo((box.scrollLeft + x) * grown - x, (box.scrollTop + y) * grown - y);
  }

  fit() {
    const room = this.box.clientWidth && this.box.clientHeight ? this._fit.proposeDimensions() : undefined;
    if (this.muted || !room?.cols || !room.rows) return;
    const { fontSize = LEGIBLE_FONT } = this.terminal.options;
    const fitting = Math.max(SMALLEST_FONT, Math.floor(fontSize * Math.min(room.cols / this._cols, room.rows / this._rows)));
    const usual = Math.max(LEGIBLE_FONT, Math.min(settings().fontSize, fitting));
    const wanted = Math.max(Math.min(LEGIBLE_FONT, fitting), Math.min(this._chosen ?? usual, LARGEST_FONT));
    if (wanted !== fontSize) this.terminal.options.fontSize = wanted;
    this.terminal.resize(this._cols, this._rows);
  }
}

class Watching {
  /** @param {string} share */
  constructor(share) {
    this._share = share;
    this._backoff = new Backoff();
    this._types = false;
    this._words = "";
    this._acked = 0;
    this._settled = 0;
    const box = element("div", { className: "terminal" });
    const panel = element("section", { className: "panel" }, box);
    byId("panels").append(panel);
    this._bar = new StateBar(panel, () => this._screen.focus());
    this._screen = new WatchedScreen(box, {
      input: (bytes) => this._types && this._typing.push(bytes),
      resized: () => {},
      titled: () => {},
      local: () => this._leadsInside(),
      pasted: () => {},
      rang: () => {},
    });
    this._screen.terminal.options.disableStdin = true;
    const leave = () => ([...panel.querySelectorAll("button")].find((one) => one.checkVisibility()) ?? byId("about")).focus();
    // All others are the program's: there is nothing here that they could do.
    takeKeys(this._screen.terminal, (event) => (actionOf(event)?.name === "leave" ? leave : null));
    this._playback = new Playback(this._screen, () => {}, (offset) => this._parsed(offset));
    /** @type {Socket | null} */
    this._socket = null;
    this._typing = new Typing((frame) => this._socket?.type(frame));
    this._screen.show();
    // For tests, as the other page has it.
    Object.assign(globalThis, { sshgate: { shown: { screen: this._screen } } });
  }

  _leadsInside() {
    const words = "This link leads into the sandbox; only its owner can open it.";
    // Without a connection the bar says that already, and what can be done.
    if (this._socket === null) this._bar.warn(words);
    else this._bar.show(words, [{ label: "OK", act: () => this._bar.hide() }], { dim: false });
  }

  connect() {
    this._bar.show("Connecting …", [], { soon: true });
    this._words = "";
    this._playback.forget();
    const socket = new Socket(
      {
        opened: () => socket.send({ type: "watch", share: this._share }),
        control: (frame) => this._control(frame),
        printed: (bytes) => this._playback.printed(bytes),
        closed: (code) => this._closed(code),
      },
      "watch/socket",
    );
    this._socket = socket;
  }

  /** @param {number} offset */
  _parsed(offset) {
    if (offset - this._acked < ACK_STEP) return;
    this._acked = offset;
    this._socket?.send({ type: "ack", offset });
  }

  /** @param {any} frame */
  _control(frame) {
    switch (frame.type) {
      case "watching":
        this._about(frame);
        break;
      case "hello":
        this._bar.hide();
        this._acked = frame.offset;
        this._settled ||= setTimeout(() => this._backoff.reset(), SETTLED_MS);
        this._playback.begin(frame);
        this._screen.sized(frame);
        this._typing.begin();
        break;
      case "snapshot":
        this._playback.restore(frame);
        break;
      case "size":
        this._screen.sized(frame);
        break;
      case "taken":
        this._typing.taken(frame.offset);
        break;
      case "error":
        this._words = frame.message;
        break;
      case "exit":
        this._words = frame.reason ?? "the session has ended, and this link with it.";
    }
  }

  /** @param {{owner: string, name: string, session: string, types: boolean, ends: number}} frame */
  _about({ owner, name, session, types, ends }) {
    this._types = types;
    this._screen.terminal.options.disableStdin = !types;
    const may = types ? "you may type" : "read-only";
    const until = new Date(ends * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    byId("about").textContent = `${owner} shows you ${name}=${session}, ${may}, until ${until}.`;
    document.title = `${name}=${session} of ${owner} (${may})`;
  }

  /** @param {number} code */
  _closed(code) {
    clearTimeout(this._settled);
    this._settled = 0;
    this._socket = null;
    this._typing.restart();
    const words = asSentence(this._words || "the gateway has closed this link.");
    if (FINAL.includes(code)) {
      this._bar.show(words, [{ label: "Try again", act: () => location.reload() }]);
      return;
    }
    const seconds = this._backoff.take();
    setTimeout(() => this.connect(), seconds * 1000);
    this._bar.show("The connection is lost. Trying again in", [], { seconds: Math.ceil(seconds) });
  }
}

/** What the link has brought, which boot.js has taken out of the address; else that of before a reload. */
function secret() {
  const { watchSecret } = /** @type {{watchSecret?: string | null}} */ (globalThis);
  Object.assign(globalThis, { watchSecret: null });
  if (watchSecret) write("sessionStorage", KEY, watchSecret);
  return read("sessionStorage", KEY);
}

applyTheme();
// Another link in the same tab changes the fragment only: the page begins again with it.
window.addEventListener("hashchange", () => location.hash.startsWith("#watch=") && location.reload());
const share = secret();
if (share === null) {
  byId("loading-text").textContent = "This page needs the whole link that its owner has sent you.";
} else {
  byId("loading").hidden = true;
  byId("frame").hidden = false;
  void typeface().then(() => new Watching(share).connect());
}
