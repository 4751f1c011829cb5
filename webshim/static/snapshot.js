/** The terminal's state as text that draws it again: the serialize add-on, and what it leaves out. */

// The server takes 256 KiB as UTF-8.
const LARGEST_BYTES = 256 << 10;
// Lines above the screen; fewer, where they are too long. Each costs time in which nothing is drawn.
const SCROLLBACKS = [1000, 200, 0];

/** DEC private modes that the add-on does not know, with their usual values: the cursor is visible, mouse reports are old. */
const MODES = new Map([[25, true], [1005, false], [1006, false], [1015, false], [1016, false]]);

export class Snapshots {
  _modes = new Map(MODES);
  /** Scrolling regions, by kind of buffer. @type {Record<string, string>} */
  _regions = {};
  _cursorShape = "";
  _drawing = false;

  /** @param {import("./terminal.js").Screen} screen */
  constructor({ terminal, marks }) {
    this._terminal = terminal;
    this._marks = marks;
    /** Fetched with the first key: before it a first load would wait. @type {import("./vendor/addon-serialize.js").SerializeAddon | undefined} */
    this._serialize = undefined;
    const typed = terminal.onData(() => (typed.dispose(), void this._load()));
    this._loading = false;
    this._watch(terminal);
  }

  async _load() {
    if (this._loading) return;
    this._loading = true;
    // Without it the gateway has the program draw anew.
    const { SerializeAddon } = (await import("./vendor/addon-serialize.js").catch(() => null)) ?? {};
    if (!SerializeAddon) return;
    this._serialize = new SerializeAddon();
    this._terminal.loadAddon(this._serialize);
  }

  /**
   * Null while the terminal is in the middle of a sequence or a character, or where the state is too large.
   *
   * @returns {string | null}
   */
  take() {
    void this._load();
    if (!this._serialize || !this._between()) return null;
    for (const scrollback of SCROLLBACKS) {
      const text = this._serialize.serialize({ scrollback }) + this._rest() + this._marks.kept;
      if (new TextEncoder().encode(text).length <= LARGEST_BYTES) return text;
    }
    return null;
  }

  /** Private of xterm.js 6.0, which has no other way to ask; the version is pinned, and a test shows a change. */
  _between() {
    const { _parser, _utf8Decoder } = /** @type {any} */ (this._terminal)._core._inputHandler;
    return _parser.currentState === 0 && _utf8Decoder.interim[0] === 0;
  }

  /** The terminal was reset. */
  forget() {
    this._modes = new Map(MODES);
    this._regions = {};
    this._cursorShape = "";
    this._drawing = false;
  }

  _rest() {
    const changed = [...this._modes].filter(([mode, on]) => MODES.get(mode) !== on);
    const { type, cursorX, cursorY } = this._terminal.buffer.active;
    const region = this._regions[type];
    return [
      ...changed.map(([mode, on]) => `\x1b[?${mode}${on ? "h" : "l"}`),
      this._cursorShape,
      // Setting the region moves the cursor.
      region ? `${region}\x1b[${cursorY + 1};${cursorX + 1}H` : "",
      this._drawing ? "\x1b(0" : "",
    ].join("");
  }

  /** @param {import("./vendor/xterm.js").Terminal} terminal */
  _watch({ parser, onResize, buffer }) {
    /** @param {() => void} note */
    const observed = (note) => (note(), false); // the terminal handles it as well
    /** @param {(number | number[])[]} params @param {boolean} on */
    const set = (params, on) => params.forEach((mode) => MODES.has(Number(mode)) && this._modes.set(Number(mode), on));
    parser.registerCsiHandler({ prefix: "?", final: "h" }, (params) => observed(() => set(params, true)));
    parser.registerCsiHandler({ prefix: "?", final: "l" }, (params) => observed(() => set(params, false)));
    parser.registerCsiHandler({ final: "r" }, (params) =>
      observed(() => {
        const [top, bottom] = params.map(Number);
        this._regions[buffer.active.type] = top || bottom ? `\x1b[${top || ""};${bottom || ""}r` : "";
      }),
    );
    parser.registerCsiHandler({ intermediates: " ", final: "q" }, ([shape]) =>
      observed(() => (this._cursorShape = `\x1b[${Number(shape)} q`)),
    );
    parser.registerEscHandler({ intermediates: "(", final: "0" }, () => observed(() => (this._drawing = true)));
    parser.registerEscHandler({ intermediates: "(", final: "B" }, () => observed(() => (this._drawing = false)));
    parser.registerEscHandler({ final: "c" }, () => observed(() => this.forget()));
    parser.registerCsiHandler({ intermediates: "!", final: "p" }, () => observed(() => this.forget()));
    onResize(() => (this._regions = {}));
  }
}
