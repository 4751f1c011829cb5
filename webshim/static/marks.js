/** The prompts and commands of a shell that marks them (OSC 133): a stripe beside the scrollbar, ways between, the last output. */

// Each costs time with every line that scrolls out.
const MOST = 200;
const COLOURS = { none: "#7d8799", good: "#4ea85c", bad: "#d0525d" };
/** In a snapshot: how many lines above the cursor each prompt is. */
const KEPT = "sshgate=";

export class Marks {
  /** @type {{at: import("./vendor/xterm.js").IMarker, stripe: {dispose(): void} | undefined}[]} */
  _prompts = [];
  /** What runs since then. @type {import("./vendor/xterm.js").IMarker | undefined} */
  _began;
  /** @type {{from: import("./vendor/xterm.js").IMarker | undefined, to: import("./vendor/xterm.js").IMarker | undefined, column: number} | undefined} */
  _last;

  /** @param {import("./vendor/xterm.js").Terminal} terminal */
  constructor(terminal) {
    this._terminal = terminal;
    terminal.parser.registerOscHandler(133, (content) => (this._mark(content), false));
    terminal.parser.registerEscHandler({ final: "c" }, () => (this.forget(), false));
  }

  /** The terminal was reset. */
  forget() {
    for (const { at } of this._prompts) at.dispose();
    this._prompts = [];
    this._began = this._last = undefined;
  }

  /** Whether there is a way between prompts. */
  get any() {
    return this._terminal.buffer.active.type === "normal" && this._prompts.some(({ at }) => !at.isDisposed);
  }

  /** @param {1 | -1} step to the next prompt, or to the one above what is shown */
  go(step) {
    const { viewportY } = this._terminal.buffer.active;
    const lines = this._prompts.map(({ at }) => at.line).filter((line) => line >= 0 && (line - viewportY) * step > 0);
    if (lines.length) this._terminal.scrollToLine(step > 0 ? Math.min(...lines) : Math.max(...lines));
    else if (step > 0) this._terminal.scrollToBottom();
  }

  /** Whether a command has printed something, perhaps nothing. */
  get printed() {
    return this._began !== undefined || this._last !== undefined;
  }

  /** What the last command has printed, or has so far. @returns {string} */
  get output() {
    const { normal } = this._terminal.buffer;
    const now = normal.baseY + normal.cursorY;
    const { from, to, column } = this._began ? { from: this._began, to: undefined, column: normal.cursorX } : (this._last ?? {});
    if (!from || to?.isDisposed) return "";
    // Its beginning may have been scrolled out.
    const end = to?.line ?? now;
    const rest = column ? (normal.getLine(end)?.translateToString(true, 0, column) ?? "") : "";
    return textOf(normal, Math.max(0, from.line), end) + rest;
  }

  /** For a snapshot: the prompts as a sequence that `_mark` reads, after the cursor is where it was. */
  get kept() {
    const { baseY, cursorY, type } = this._terminal.buffer.active;
    const lines = this._prompts.map(({ at }) => baseY + cursorY - at.line).filter((above, index) => !this._prompts[index].at.isDisposed && above >= 0);
    return type === "normal" && lines.length ? `\x1b]133;${KEPT}${lines.join(",")}\x07` : "";
  }

  /** @param {string} content */
  _mark(content) {
    const { type, baseY, cursorX, cursorY } = this._terminal.buffer.active;
    if (type !== "normal") return;
    const [kind, status] = content.split(";");
    if (kind === "A") this._prompt(0);
    else if (kind === "C") {
      this._began?.dispose();
      this._began = this._terminal.registerMarker(0);
    } else if (kind === "D") this._ended(status, baseY + cursorY, cursorX);
    else if (kind.startsWith(KEPT)) {
      const above = kind.slice(KEPT.length).split(",", MOST).map(Number);
      for (const lines of above) if (Number.isInteger(lines) && lines >= 0 && lines <= baseY + cursorY) this._prompt(-lines);
    }
  }

  /** @param {number} offset from the cursor's line */
  _prompt(offset) {
    const at = this._terminal.registerMarker(offset);
    // A shell draws its prompt again, after each change of size.
    if (this._prompts.at(-1)?.at.line === at.line) {
      at.dispose();
      return;
    }
    this._prompts = this._prompts.filter(({ at }) => !at.isDisposed);
    this._prompts.push({ at, stripe: this._stripe(at, COLOURS.none) });
    if (this._prompts.length > MOST) this._prompts.shift()?.at.dispose();
  }

  /**
   * @param {string | undefined} status
   * @param {number} line
   * @param {number} column
   */
  _ended(status, line, column) {
    const prompt = this._prompts.at(-1);
    // Before the first command, or without one, a shell reports an end as well.
    const from = this._began ?? (prompt && prompt.at.line < line ? this._terminal.registerMarker(prompt.at.line + 1 - line) : undefined);
    if (!from) return;
    this._last?.from?.dispose();
    this._last?.to?.dispose();
    this._last = { from, to: this._terminal.registerMarker(0), column };
    this._began = undefined;
    if (!prompt || prompt.at.isDisposed || status === undefined) return;
    prompt.stripe?.dispose();
    prompt.stripe = this._stripe(prompt.at, status === "0" ? COLOURS.good : COLOURS.bad);
  }

  /**
   * @param {import("./vendor/xterm.js").IMarker} marker
   * @param {string} color
   */
  _stripe(marker, color) {
    return this._terminal.registerDecoration({ marker, overviewRulerOptions: { color, position: "left" } });
  }
}

/**
 * Lines as text; one that is wrapped is one line.
 *
 * @param {import("./vendor/xterm.js").IBuffer} buffer
 * @param {number} start
 * @param {number} end not with it
 */
export function textOf(buffer, start, end) {
  let found = "";
  for (let row = Math.max(0, start); row < Math.min(end, buffer.length); row += 1) {
    const wraps = buffer.getLine(row + 1)?.isWrapped ?? false;
    found += buffer.getLine(row)?.translateToString(!wraps) ?? "";
    if (!wraps) found += "\n";
  }
  return found;
}
