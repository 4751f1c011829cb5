/** What reaches the terminal, by offsets: replay without answers, snapshots out and in, what has been parsed. */

import { Snapshots } from "./snapshot.js";

export class Playback {
  /** The offset up to which the terminal holds the output, parsed or still to be. @type {number | null} */
  held = null;
  /** What is written now is old: nothing of it may be answered, and the size is not the box's. */
  restoring = false;
  _parsed = 0;
  _until = 0;
  _wanted = false;
  _sent = -1;

  /**
   * @param {import("./terminal.js").Screen} screen
   * @param {(frame: object) => void} send
   * @param {(offset: number) => void} parsed everything below the offset is on the screen
   */
  constructor(screen, send, parsed) {
    this._screen = screen;
    this._send = send;
    this._parsedUpTo = parsed;
    this._snapshots = new Snapshots(screen);
  }

  /** The next session's output starts anew. */
  forget() {
    this.held = null;
    this._parsed = this._until = 0;
    this._sent = -1;
    this._wanted = this.restoring = false;
  }

  /** @param {{start: "resume" | "snapshot", offset: number, until: number}} hello */
  begin({ start, offset, until }) {
    // Before its snapshot is here, the terminal does not hold what is below the offset.
    this.held = start === "snapshot" ? null : offset;
    this._until = until;
    if (start === "snapshot" || until > offset) this._mute(true);
  }

  /** A held session was joined again: what comes below the offset is old. @param {number} until */
  replay(until) {
    if (this.held === null || until <= this.held) return;
    this._until = Math.max(until, this._until);
    this._mute(true);
  }

  /** @param {{offset: number, cols: number, rows: number, data: string, screen?: string}} snapshot */
  restore({ offset, cols, rows, data, screen = "" }) {
    const { terminal } = this._screen;
    this.held = offset;
    // What was written before is parsed first; only then the terminal is empty.
    terminal.write("", () => {
      this._screen.reset();
      this._snapshots.forget();
      terminal.resize(cols, rows);
    });
    terminal.write(Uint8Array.from(atob(screen), (byte) => byte.charCodeAt(0)));
    terminal.write(data, () => this._reached(offset));
  }

  /** @param {Uint8Array} bytes */
  printed(bytes) {
    const upTo = (this.held ?? 0) + bytes.length;
    this.held = upTo;
    this._screen.write(bytes, () => this._reached(upTo));
  }

  /** Send the state as soon as the terminal is between two sequences. */
  snapshotSoon() {
    this._wanted = true;
    if (this._parsed === this.held) this.snapshot();
  }

  /** Send the state now, if that can be. */
  snapshot() {
    if (this.restoring || this.held === null || this._parsed <= this._sent) return;
    const data = this._snapshots.take();
    if (data === null) return;
    this._wanted = false;
    this._sent = this._parsed;
    this._send({ type: "snapshot", offset: this._parsed, ...this._screen.size, data });
  }

  /** @param {number} offset */
  _reached(offset) {
    this._parsed = offset;
    if (this.restoring && offset >= this._until) this._mute(false);
    this._parsedUpTo(offset);
    if (this._wanted) this.snapshot();
  }

  /** @param {boolean} muted */
  _mute(muted) {
    this.restoring = this._screen.muted = muted;
    if (muted) return;
    const { size } = this._screen;
    this._screen.fit();
    const fitted = this._screen.size;
    // A size that did not change causes no event.
    if (size.cols === fitted.cols && size.rows === fitted.rows) this._send({ type: "resize", ...fitted });
  }
}
