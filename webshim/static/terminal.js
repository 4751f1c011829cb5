/** One xterm.js terminal in its box: bytes in and out, its size, its looks. It knows nothing of the network. */

import { FitAddon } from "./vendor/addon-fit.js";
import { Unicode11Addon } from "./vendor/addon-unicode11.js";
import { WebLinksAddon } from "./vendor/addon-web-links.js";
import { Terminal } from "./vendor/xterm.js";
import { soon } from "./api.js";
import { acceptCopies, copy, harmless, pasted, takePastes } from "./clipboard.js";
import { askForText, askToPaste } from "./dialogs.js";
import { links } from "./links.js";
import { Marks } from "./marks.js";
import { change, colours, onChange, settings, shownTheme } from "./settings.js";
import { fontFamily, TYPEFACE } from "./themes.js";
import { Touch } from "./touch.js";

/** @type {Record<string, number>} */
const LINE_HEIGHTS = { close: 1, medium: 1.2, wide: 1.4 };
// Less of a character than this is missed by nobody.
const CUT_PIXELS = 0.2;
const MOUSE_REPORT = "\x1b[<";
// More than this is pasted only after a question.
const LONG_PASTE = 5000;
const encoder = new TextEncoder();
/** @type {typeof import("./vendor/addon-unicode-graphemes.js").UnicodeGraphemesAddon | undefined} */
let Graphemes;

/** What a setting wants, fetched before a terminal is made: what was printed keeps its width. */
export async function fetchGraphemes() {
  if (settings().graphemes) Graphemes ??= (await soon(import("./vendor/addon-unicode-graphemes.js")))?.UnicodeGraphemesAddon;
}

/**
 * @typedef {object} Listener what becomes of the terminal
 * @property {(bytes: Uint8Array<ArrayBuffer>) => void} input what was typed, pasted, or answered to a program's question
 * @property {(size: {cols: number, rows: number}) => void} resized
 * @property {(title: string) => void} titled
 * @property {() => void} rang
 * @property {(url: URL) => void} local a link to the sandbox itself was opened
 * @property {(files: File[]) => void} pasted files without a text
 */

export class Screen {
  /** Whether a program may offer something for the clipboard. */
  copies = true;

  /**
   * @param {HTMLElement} box
   * @param {Listener} listener
   */
  constructor(box, listener) {
    this.box = box;
    this.terminal = new Terminal(options());
    this.marks = new Marks(this.terminal);
    /** While true, what the emulator would say is dropped: it answers questions that a program asked long ago. */
    this.muted = false;
    /** @type {string | null} */
    this._highlight = null;
    this._byHand = false;
    this._fit = new FitAddon();
    /** @type {{dispose(): void} | null} */
    this._webgl = null;
    this._fitting = 0;
    this._life = new AbortController();
    /** @type {import("./vendor/addon-unicode-graphemes.js").UnicodeGraphemesAddon | void} */
    this._graphemes = undefined;
    this._load(listener);
    this.terminal.open(box);
    mendReversed(this.terminal);
    this.terminal.textarea?.setAttribute("aria-label", "Terminal input. Control Shift E leaves the terminal.");
    takePastes(box, (text) => void this.paste(text), listener.pasted);
    // Of several lines that a keyboard commits at once, xterm.js takes the text between their ends only.
    this.terminal.textarea?.addEventListener("beforeinput", (event) => {
      const { inputType, data } = event;
      if (/^insert(LineBreak|Paragraph)$/.test(inputType)) this.terminal.input("\r", true);
      else if (inputType === "insertText" && data?.includes("\n")) void this.paste(data);
      else return;
      event.preventDefault();
    });
    if (navigator.maxTouchPoints) new Touch(this);
    // What a program or the search selects is not the person's.
    box.addEventListener("pointerup", ({ pointerType, button }) => {
      if (pointerType === "mouse" && button === 0 && settings().copyOnSelect) setTimeout(() => this._copySelected());
    });
    this._observer = new ResizeObserver(() => this._fitSoon());
    this._observer.observe(box);
    this._unwatch = onChange(() => this._restyle());
    document.fonts.addEventListener("loadingdone", (event) => this._typefaceCame(event), this._life);
  }

  /** @param {Listener} listener */
  _load(listener) {
    const { terminal } = this;
    terminal.loadAddon(this._fit);
    terminal.loadAddon(new Unicode11Addon());
    terminal.unicode.activeVersion = "11";
    this._measure();
    terminal.options.linkHandler = links(terminal, listener.local, true);
    const plain = links(terminal, listener.local, false);
    terminal.loadAddon(new WebLinksAddon(plain.activate, plain));
    acceptCopies(terminal, () => this.copies && !this.muted);
    // Private of xterm.js 6.0, whose DOM renderer draws what was selected last again after each change of size.
    const drawn = () => /** @type {any} */ (terminal)._core._renderService?._renderer.value?._selectionRenderModel;
    terminal.onSelectionChange(() => terminal.hasSelection() || drawn()?.clear?.());
    // Private of xterm.js 6.0, emitted just before `onData` of what a person has typed or pasted; a test shows a change.
    /** @type {any} */ (terminal)._core.coreService.onUserInput(() => (this._byHand = true));
    terminal.onData((text) => this._input(listener, text));
    // Mouse reports of the old kind are bytes, not text.
    terminal.onBinary((text) => this._say(listener, Uint8Array.from(text, (letter) => letter.charCodeAt(0) & 255)));
    terminal.onResize(({ cols, rows }) => listener.resized({ cols, rows }));
    terminal.onTitleChange((title) => listener.titled(title));
    terminal.onBell(() => listener.rang());
  }

  /**
   * @param {Listener} listener
   * @param {string} text
   */
  _input(listener, text) {
    const byHand = this._byHand && !text.startsWith(MOUSE_REPORT);
    this._byHand = false;
    // A person does not wait for a replay to end. Mouse reports do: an old program may have asked for those.
    if (byHand) listener.input(encoder.encode(text));
    else this._say(listener, encoder.encode(text));
  }

  /**
   * @param {Listener} listener
   * @param {Uint8Array<ArrayBuffer>} bytes
   */
  _say(listener, bytes) {
    if (!this.muted) listener.input(bytes);
  }

  /**
   * What a person pastes. Lines that would run one after the other as they come are asked about first.
   *
   * @param {string} text
   */
  async paste(text) {
    const plain = harmless(text);
    const runs = !this.terminal.modes.bracketedPasteMode && /[\r\n]./s.test(plain.trimEnd());
    if (settings().pasteWarning && (runs || plain.length > LONG_PASTE) && !(await askToPaste(plain, runs))) return;
    this.terminal.paste(plain);
  }

  /** Without TLS, or without the person's consent, the browser gives the clipboard only to a field. */
  async pasteClipboard() {
    const text = (await pasted()) ?? (await askForText());
    if (text) await this.paste(text);
  }

  _copySelected() {
    if (this.terminal.hasSelection()) void copy(this.terminal.getSelection());
  }

  get size() {
    return { cols: this.terminal.cols, rows: this.terminal.rows };
  }

  /**
   * @param {Uint8Array | string} output
   * @param {() => void} [parsed] called when all of it has reached the screen's memory
   */
  write(output, parsed) {
    this.terminal.write(output, parsed);
  }

  /** The box is visible now: the size may be another, and the graphics card may be used. */
  show(focuses = true) {
    this.fit();
    if (graphicsCard()) void this.accelerate();
    if (focuses) this.terminal.focus();
  }

  /** Browsers allow few WebGL contexts; only what is in sight needs one. */
  hide() {
    this._webgl?.dispose();
    this._webgl = null;
  }

  focus() {
    this.terminal.focus();
  }

  /** Two fingers want letters of this size. @param {number} fontSize */
  enlarge(fontSize) {
    if (fontSize !== settings().fontSize) change({ fontSize });
  }

  /** Take the box's size. A hidden box has none, and what is replayed was drawn for another: both wait. */
  fit() {
    if (this.muted || this.box.clientWidth === 0 || this.box.clientHeight === 0) return;
    this._fit.fit();
  }

  _fitSoon() {
    cancelAnimationFrame(this._fitting);
    this._fitting = requestAnimationFrame(() => this.fit());
  }

  /** Everything as it was before the first byte; the size stays. */
  reset() {
    this.terminal.reset();
    this.marks.forget();
  }

  dispose() {
    this._observer.disconnect();
    this._unwatch();
    this._life.abort();
    this.hide();
    this.terminal.dispose();
  }

  /** The colour of what is selected while the focus is elsewhere. @param {string | null} colour null: the theme's */
  highlight(colour) {
    this._highlight = colour;
    this._restyle();
  }

  /** After all: xterm.js has measured another one, and measures again only after a change. @param {FontFaceSetLoadEvent} event */
  _typefaceCame({ fontfaces }) {
    if (!fontfaces.some(({ family }) => TYPEFACE.includes(family))) return;
    this.terminal.options.fontFamily = "monospace";
    this.terminal.clearTextureAtlas();
    this._restyle();
  }

  /** How many cells a sign takes. */
  _measure() {
    const wanted = settings().graphemes;
    if (wanted && !Graphemes) void fetchGraphemes().then(() => Graphemes && !this._life.signal.aborted && this._measure());
    if (wanted && Graphemes && !this._graphemes) this.terminal.loadAddon((this._graphemes = new Graphemes()));
    if (!wanted) this._graphemes = this._graphemes?.dispose();
  }

  _restyle() {
    this._measure();
    const { theme, ...others } = looks();
    const selection = this._highlight && { selectionInactiveBackground: this._highlight };
    Object.assign(this.terminal.options, { ...others, theme: { ...theme, ...selection } });
    this._fitSoon();
  }

  /** Draw with WebGL; with the DOM where that fails, and again when the graphics card is lost. */
  async accelerate() {
    if (this._webgl !== null) return;
    // Where it does not arrive, the DOM goes on.
    const { WebglAddon } = (await import("./vendor/addon-webgl.js").catch(() => null)) ?? {};
    if (!WebglAddon || this._webgl !== null || this.box.clientWidth === 0) return;
    const webgl = new WebglAddon();
    try {
      webgl.onContextLoss(() => this.hide());
      this.terminal.loadAddon(webgl);
      this._webgl = webgl;
    } catch {
      webgl.dispose();
    }
  }
}

let mended = false;

/**
 * Private of xterm.js 6.0, whose DOM renderer takes reversed text for text in the colour of its own ground, and greys it.
 *
 * @param {Terminal} terminal open already
 */
function mendReversed(terminal) {
  const rows = /** @type {any} */ (terminal)._core._renderService._renderer.value._rowFactory;
  if (mended || !rows) return;
  mended = true;
  const drawn = Object.getPrototypeOf(rows);
  const { _applyMinimumContrast: contrast } = drawn;
  drawn._applyMinimumContrast = function (/** @type {any[]} */ ...[element, ground, text, cell, ...selected]) {
    const { foreground, background } = this._themeService.colors;
    const own = cell.isInverse() && text === foreground ? background : text;
    return contrast.call(this, element, ground, own, cell, ...selected);
  };
}

export function options() {
  return {
    allowProposedApi: true, // unicode versions and decorations are
    overviewRuler: { width: 14 }, // of the scrollbar, which it lies on
    rightClickSelectsWord: false,
    ...looks(),
  };
}

export function looks() {
  const { cursor, cursorBlink, fontSize, lineHeight, palette, screenReader, scrollback } = settings();
  const plainContrast = shownTheme() === "light" ? 4.5 : 2.5;
  return {
    cursorBlink,
    cursorStyle: cursor,
    fontFamily: fontFamily(settings()),
    fontSize,
    lineHeight: Math.max(LINE_HEIGHTS[lineHeight], leastHeight(fontSize)),
    theme: { ...colours(), overviewRulerBorder: "#00000000" },
    // Programs choose their colours for a dark ground; on ours, black would be lost.
    minimumContrastRatio: palette === "contrast" ? 7 : plainContrast,
    screenReaderMode: screenReader,
    scrollback: Number(scrollback),
  };
}

/**
 * 1, so that vertical lines of frames meet; one pixel more where the browser's rounding would cut the underscore off.
 *
 * @param {number} fontSize in CSS pixels
 */
function leastHeight(fontSize) {
  const pen = document.createElement("canvas").getContext("2d");
  if (!pen) return 1;
  pen.font = `${fontSize}px ${fontFamily(settings())}`;
  const { fontBoundingBoxAscent, fontBoundingBoxDescent, actualBoundingBoxDescent } = pen.measureText("_");
  const cut = actualBoundingBoxDescent - fontBoundingBoxDescent > CUT_PIXELS;
  return cut ? 1.001 + 1 / (fontBoundingBoxAscent + fontBoundingBoxDescent) : 1;
}

/** @type {boolean | undefined} */
let accelerated;

/** Whether WebGL is done by hardware: in software it is slower than the DOM. */
function graphicsCard() {
  if (accelerated === undefined) {
    const context = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
    // Chromium does not count its own software renderer as a caveat.
    const names = context?.getExtension("WEBGL_debug_renderer_info");
    const renderer = names ? String(context?.getParameter(names.UNMASKED_RENDERER_WEBGL)) : "";
    accelerated = context !== null && !/swiftshader|llvmpipe|software/i.test(renderer);
    context?.getExtension("WEBGL_lose_context")?.loseContext();
  }
  return accelerated;
}
