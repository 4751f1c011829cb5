/** One WebSocket of the protocol `sshgate.v1`: frames in and out, what is typed on its way, and when the next one is tried. */

/**
 * @typedef {object} Receiver
 * @property {() => void} opened
 * @property {(frame: any) => void} control a control frame
 * @property {(bytes: Uint8Array) => void} printed
 * @property {(code: number) => void} closed once, and nothing after it
 */

export class Socket {
  /**
   * @param {Receiver} receiver
   * @param {string} [path]
   */
  constructor(receiver, path = "terminal") {
    const url = new URL(path, document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    this._socket = new WebSocket(url, "sshgate.v1");
    this._socket.binaryType = "arraybuffer";
    this._silenced = new AbortController();
    const { signal } = this._silenced;
    this._socket.addEventListener("open", () => receiver.opened(), { signal });
    this._socket.addEventListener("close", ({ code }) => receiver.closed(code), { signal });
    this._socket.addEventListener(
      "message",
      ({ data }) => {
        if (typeof data === "string") receiver.control(JSON.parse(data));
        else receiver.printed(new Uint8Array(data));
      },
      { signal },
    );
  }

  get open() {
    return this._socket.readyState === WebSocket.OPEN;
  }

  /** @param {object} frame */
  send(frame) {
    if (this.open) this._socket.send(JSON.stringify(frame));
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes */
  type(bytes) {
    if (this.open) this._socket.send(bytes);
  }

  /** Ends it without a word to the receiver. */
  drop() {
    this._silenced.abort();
    this._socket.close();
  }
}

// No more is on the line than a program that does not read may leave there.
// The server reports what was taken each 32 KiB, and ends a socket with 1 MiB not taken.
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

// A try follows after 0.5, 1, 2, 4, 8, 8 … seconds, each up to a quarter more, so that pages do not come all at once.
const FIRST_SECONDS = 0.5;
const LAST_SECONDS = 8;
const JITTER = 0.25;

export class Backoff {
  constructor() {
    this._next = FIRST_SECONDS;
  }

  /** The next wait, in seconds. */
  take() {
    const seconds = this._next * (1 + Math.random() * JITTER);
    this._next = Math.min(this._next * 2, LAST_SECONDS);
    return seconds;
  }

  reset() {
    this._next = FIRST_SECONDS;
  }
}
