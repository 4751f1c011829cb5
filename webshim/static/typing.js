/** What is typed and pasted, on its way: no more of it on the line than a program that does not read may leave there. */

// The server tells what was taken each 32 KiB, and ends a socket with 1 MiB not taken.
const WINDOW = 256 << 10;
// It takes frames of up to 64 KiB.
const LARGEST_FRAME = 32 << 10;
const INTERRUPT = 3;

export class Typing {
  /** @param {(frame: Uint8Array<ArrayBuffer>) => void} send */
  constructor(send) {
    this._send = send;
    /** @type {Uint8Array<ArrayBuffer>[]} */
    this._waiting = [];
    this._sent = 0;
    this._taken = 0;
    this._begun = false;
  }

  /** The socket is attached: what was typed while it was on its way goes now. */
  begin() {
    this._begun = true;
    this._pump();
  }

  /** A new socket counts from 0; what waited for the old one is not typed into a program that may be another. */
  restart() {
    this._waiting = [];
    this._sent = this._taken = 0;
    this._begun = false;
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  push(bytes) {
    // Ctrl-C does not wait behind a paste; the rest of that is what it interrupts.
    if (bytes.length === 1 && bytes[0] === INTERRUPT && this._begun) {
      this._waiting = [];
      this._now(bytes);
      return;
    }
    for (let start = 0; start < bytes.length; start += LARGEST_FRAME) {
      this._waiting.push(bytes.subarray(start, start + LARGEST_FRAME));
    }
    this._pump();
  }

  /** @param {number} offset the program was handed all the input below it */
  taken(offset) {
    this._taken = offset;
    this._pump();
  }

  _pump() {
    while (this._begun && this._waiting.length && this._sent - this._taken + this._waiting[0].length <= WINDOW) {
      this._now(/** @type {Uint8Array<ArrayBuffer>} */ (this._waiting.shift()));
    }
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  _now(bytes) {
    this._sent += bytes.length;
    this._send(bytes);
  }
}
