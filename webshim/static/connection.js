/**
 * A session's line to the gateway over many sockets: tickets, attaching, acknowledging, coming back after a loss.
 *
 * What it is at is reported as one of
 * `connecting`, `attached`, `silent` (it may be lost), `waiting` (for the next try), and the ends
 * `finished`, `elsewhere` (open in another tab), `taken` (by another tab), `gone`, `login` (needed), `refused`.
 */

import { asSentence, Refused, sentence, ticket } from "./api.js";
import { Backoff, Socket, Typing } from "./socket.js";
import { tabId } from "./tabid.js";

// The server stops at 512 KiB that are not acknowledged, and goes on at 256.
const ACK_STEP = 64 << 10;
// A socket can be dead without knowing it. Keys that nothing answers for QUIET are followed by a ping; a ping that nothing
// answers is reported after SILENT, and after LOST more the socket counts as lost.
const QUIET_SECONDS = 2;
const SILENT_SECONDS = 3;
const LOST_SECONDS = 3;
const SETTLED_SECONDS = 5;
// Until the session is attached. What accepts a socket may be a gateway, or a balancer, that is just ending.
const OPENING_SECONDS = 15;
// A session that was open in another window is tried again once nobody is attached for this time: that window may only
// be loading again. Each further try waits twice as long.
const FREE_SECONDS = 5;
const MOST_TRIES = 5;

/** @type {Record<number, "finished" | "login" | "elsewhere" | "taken">} */
const ENDS = { 1000: "finished", 4401: "login", 4409: "elsewhere", 4410: "taken" };
const ELSEWHERE = 4409;
const RULES_BROKEN = [1008, 1009];
const NO_SUCH_TICKET = 4404;

/**
 * @typedef {"connecting" | "attached" | "silent" | "waiting" | "finished" | "elsewhere" | "taken" | "gone" | "login" | "refused"} Stage
 *
 * @typedef {object} Listener
 * @property {() => {cols: number, rows: number}} size
 * @property {() => Promise<{id: string, ticket: string} | null>} rejoined the gateway does not know the session, which may
 *   go on without it; null: it is gone
 * @property {() => number | null} held the offset up to which the terminal holds the output; null: nothing
 * @property {(stage: Stage, words: string, seconds: number) => void} staged `words` is a sentence, or empty
 * @property {(frame: any) => void} control a control frame that is the session's
 * @property {(bytes: Uint8Array) => void} printed
 */

export class Connection {
  /**
   * @param {string} id the session
   * @param {Listener} listener
   */
  constructor(id, listener) {
    this._id = id;
    this._listener = listener;
    this._backoff = new Backoff();
    this._typing = new Typing((frame) => this._socket?.type(frame));
    /** @type {Socket | null} */
    this._socket = null;
    this._acked = 0;
    this._words = "";
    this._timer = 0;
    this._probe = 0;
    this._attached = this._silent = this._begun = false;
    this._settled = 0;
    this._retriedTicket = false;
    /** It is open in another window, which nobody here has taken it from. */
    this._elsewhere = false;
    this._free = this._tries = 0;
    /** @type {Promise<{id: string, ticket: string} | null> | null} */
    this._rejoining = null;
    this._wake = new AbortController();
    const { signal } = this._wake;
    window.addEventListener("online", () => this.hurry(), { signal });
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry(), { signal });
  }

  /**
   * @param {{ticket?: string | null, takeOver?: boolean}} [how]
   */
  connect({ ticket: first = null, takeOver = false } = {}) {
    this._forget();
    this._words = "";
    this._listener.staged("connecting", "", 0);
    const wanted = first === null ? this._ticket() : Promise.resolve(first);
    wanted.catch((error) => this._socket === socket && this._noTicket(error));
    const socket = new Socket({
      opened: () => void Promise.all([wanted, tabId]).then((given) => this._attach(socket, given, takeOver), () => {}),
      control: (frame) => this._control(frame),
      printed: (bytes) => (this._answered(), this._listener.printed(bytes)),
      closed: (code) => this._closed(code),
    });
    this._socket = socket;
    this._probe = setTimeout(() => this._closed(1006), OPENING_SECONDS * 1000);
  }

  /** @returns {Promise<string>} */
  async _ticket() {
    const id = this._id;
    try {
      return await ticket(id);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 404) throw error;
      // Another try may have joined it meanwhile, or be about to.
      if (this._id !== id) return this._ticket();
      this._rejoining ??= this._listener.rejoined().finally(() => (this._rejoining = null));
      const again = await this._rejoining;
      if (again === null) throw error;
      this._id = again.id;
      return again.ticket;
    }
  }

  /** Try now what would be tried later; make sure that a socket which seems open is. */
  hurry() {
    if (this._timer) {
      this._backoff.reset();
      this.connect();
    } else if (!this._silent) this._ping();
  }

  /**
   * Before `attach`, which has the size of its moment, nothing may be sent: an open socket may still wait for its ticket.
   *
   * @param {object} frame
   */
  send(frame) {
    if (this._begun) this._socket?.send(frame);
  }

  /**
   * Before the session is attached it waits: the first frame of a socket is `attach`.
   *
   * @param {Uint8Array<ArrayBuffer>} bytes
   */
  type(bytes) {
    if (this._socket === null) return;
    this._typing.push(bytes);
    if (this._attached && !this._probe) this._probe = setTimeout(() => this._ping(), QUIET_SECONDS * 1000);
  }

  /** Whether the gateway still answers. */
  _ping() {
    if (!this._attached) return;
    clearTimeout(this._probe);
    this._socket?.send({ type: "ping", id: 1 });
    this._probe = setTimeout(() => {
      this._silent = true;
      this._listener.staged("silent", "", QUIET_SECONDS + SILENT_SECONDS);
      this._probe = setTimeout(() => this._closed(1006), LOST_SECONDS * 1000);
    }, SILENT_SECONDS * 1000);
  }

  _answered() {
    clearTimeout(this._probe);
    this._probe = 0;
    if (this._silent) this._listener.staged("attached", "", 0);
    this._silent = false;
  }

  /**
   * Everything below the offset has been parsed.
   *
   * @param {number} offset
   */
  parsed(offset) {
    if (offset - this._acked < ACK_STEP) return;
    this._acked = offset;
    this.send({ type: "ack", offset });
  }

  /**
   * The gateway has listed the session. It may notice late that the other window, in which it was open, has gone.
   *
   * @param {boolean} attached
   */
  listed(attached) {
    if (attached) {
      clearTimeout(this._free);
      this._free = 0;
    } else if (this._elsewhere && this._tries < MOST_TRIES) {
      this._free ||= setTimeout(() => {
        this._free = 0;
        // What nobody looks at stays with whom it is.
        if (!this._elsewhere || document.hidden) return;
        this._tries += 1;
        this.connect();
      }, FREE_SECONDS * 1000 * 2 ** this._tries);
    }
  }

  /** For good. */
  close() {
    this._forget();
    this._wake.abort();
  }

  _forget() {
    clearTimeout(this._timer);
    clearTimeout(this._probe);
    clearTimeout(this._settled);
    clearTimeout(this._free);
    this._timer = this._probe = this._free = 0;
    this._elsewhere = false;
    this._attached = this._silent = this._begun = false;
    this._socket?.drop();
    this._socket = null;
    this._typing.restart();
  }

  /**
   * @param {Socket} socket
   * @param {[string, string]} given
   * @param {boolean} takeOver
   */
  _attach(socket, [ticket, tab], takeOver) {
    const { cols, rows } = this._listener.size();
    const from = this._listener.held();
    this._begun = true;
    socket.send({ type: "attach", session: this._id, ticket, tab, cols, rows, from, take_over: takeOver });
  }

  /** @param {any} frame */
  _control(frame) {
    this._answered();
    switch (frame.type) {
      case "pong":
        return;
      case "taken":
        this._typing.taken(frame.offset);
        return;
      case "error":
        this._words = asSentence(frame.message);
        return;
      case "hello":
        this._attached = true;
        this._tries = 0;
        this._acked = frame.offset;
        this._retriedTicket = false;
        // A gateway that lets go at once must not be asked twice a second.
        this._settled = setTimeout(() => this._backoff.reset(), SETTLED_SECONDS * 1000);
        this._listener.control(frame);
        this._listener.staged("attached", "", 0);
        this._typing.begin();
        return;
      default:
        this._listener.control(frame);
    }
  }

  /** @param {number} code */
  _closed(code) {
    this._forget();
    const words = this._words;
    this._elsewhere = code === ELSEWHERE;
    if (code in ENDS) this._listener.staged(ENDS[code], words, 0);
    else if (RULES_BROKEN.includes(code)) this._listener.staged("refused", words, 0);
    else if (code === NO_SUCH_TICKET && !this._retriedTicket) {
      this._retriedTicket = true;
      this.connect();
    } else this._wait(words);
  }

  /** @param {unknown} error */
  _noTicket(error) {
    this._forget();
    if (!(error instanceof Refused) || error.passing || error.status === 429) this._wait(sentence(error));
    else if (error.status === 401) this._listener.staged("login", error.message, 0);
    else if (error.status === 404) this._listener.staged("gone", error.message, 0);
    else this._listener.staged("refused", error.message, 0);
  }

  /** @param {string} words */
  _wait(words) {
    const seconds = this._backoff.take();
    this._timer = setTimeout(() => this.connect(), seconds * 1000);
    this._listener.staged("waiting", words, seconds);
  }
}
