/** One WebSocket of the protocol `sshgate.v1`: frames in and out, no decisions. */

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
