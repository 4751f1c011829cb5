/** Fingers on a terminal: one scrolls, two change the font's size, a long press offers the text for selecting. */

import { offerText } from "./dialogs.js";
import { textOf } from "./marks.js";

// A finger that moves less than this taps or presses.
const SLOP_PIXELS = 8;
const LONG_PRESS_MS = 500;
// What is left of the speed after a millisecond of gliding, and the speed (in pixels per millisecond) at which it ends.
const FRICTION = 0.998;
const SLOWEST = 0.03;
// A finger that rested for longer before it was lifted has thrown nothing.
const RESTED_MS = 60;
// A program gets no more turns of the wheel in one frame.
const MOST_TURNS = 10;
const OFFERED_LINES = 200;

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Touch {
  /** @param {import("./terminal.js").Screen} screen one that is open */
  constructor(screen) {
    this._screen = screen;
    this._box = screen.box;
    /** The fingers that are down, by their latest event. @type {Map<number, PointerEvent>} */
    this._fingers = new Map();
    /** @type {PointerEvent | null} */
    this._start = null;
    /** @type {{distance: number, fontSize: number} | null} */
    this._pinch = null;
    this._panning = false;
    this._velocity = 0;
    /** Pixels that are not a whole line yet. */
    this._rest = 0;
    this._timer = 0;
    this._gliding = 0;
    const { _box: box } = this;
    box.addEventListener("pointerdown", (event) => this._down(event));
    box.addEventListener("pointermove", (event) => this._move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      box.addEventListener(end, (event) => this._up(/** @type {PointerEvent} */ (event)));
    }
    // A long press is answered here; the browser's menu would have nothing for it.
    box.addEventListener("contextmenu", (event) => this._start && (event.preventDefault(), event.stopPropagation()), true);
  }

  /** @param {PointerEvent} event */
  _down(event) {
    this._start = null;
    if (event.pointerType !== "touch") return;
    cancelAnimationFrame(this._gliding);
    clearTimeout(this._timer);
    this._fingers.set(event.pointerId, event);
    if (this._fingers.size === 2) {
      this._pinch = { distance: this._distance(), fontSize: this._screen.terminal.options.fontSize ?? 0 };
      return;
    }
    this._start = event;
    this._panning = false;
    this._velocity = this._rest = 0;
    this._timer = setTimeout(() => this._press(), LONG_PRESS_MS);
  }

  /** @param {PointerEvent} event */
  _move(event) {
    const before = this._fingers.get(event.pointerId);
    if (before === undefined) return;
    this._fingers.set(event.pointerId, event);
    if (this._pinch) this._zoom();
    else if (this._panning) this._pan(before, event);
    else if (this._start && distance(this._start, event) > SLOP_PIXELS) {
      clearTimeout(this._timer);
      this._panning = true;
      // What is drawn anew under the finger takes its events along.
      this._box.setPointerCapture(event.pointerId);
    }
  }

  /** @param {PointerEvent} event */
  _up(event) {
    const last = this._fingers.get(event.pointerId);
    this._fingers.delete(event.pointerId);
    clearTimeout(this._timer);
    if (this._fingers.size || last === undefined) return;
    const thrown = this._panning && !this._pinch && event.type === "pointerup" && event.timeStamp - last.timeStamp < RESTED_MS;
    this._pinch = null;
    if (thrown && !still.matches) this._glide(performance.now(), event);
  }

  /**
   * @param {PointerEvent} before
   * @param {PointerEvent} event
   */
  _pan(before, event) {
    const pixels = before.clientY - event.clientY;
    const speed = pixels / Math.max(1, event.timeStamp - before.timeStamp);
    this._velocity = (this._velocity + speed) / 2;
    this._box.scrollLeft += before.clientX - event.clientX;
    this._scroll(pixels, event);
  }

  /**
   * @param {number} before the time of the last step
   * @param {PointerEvent} event where the finger was lifted
   */
  _glide(before, event) {
    // A program would get keys when the person has long done something else.
    if (!this._ours || Math.abs(this._velocity) < SLOWEST || !this._box.isConnected) return;
    this._gliding = requestAnimationFrame((now) => {
      const passed = Math.max(0, now - before);
      this._scroll(this._velocity * passed, event);
      this._velocity *= FRICTION ** passed;
      this._glide(now, event);
    });
  }

  /**
   * @param {number} pixels
   * @param {PointerEvent} event
   */
  _scroll(pixels, { clientX, clientY }) {
    const { terminal } = this._screen;
    const element = this._box.querySelector(".xterm-screen");
    if (!element) return;
    // Where the box is smaller than the screen, what is in sight of it comes first.
    const top = this._box.scrollTop;
    this._box.scrollTop += pixels;
    pixels -= this._box.scrollTop - top;
    const height = element.clientHeight / terminal.rows;
    this._rest += pixels;
    const lines = Math.trunc(this._rest / height);
    this._rest -= lines * height;
    if (this._ours) {
      terminal.scrollLines(lines);
      return;
    }
    // The emulator turns these into what the program wants: reports of the mouse, or arrow keys.
    const turn = { deltaY: Math.sign(lines), deltaMode: WheelEvent.DOM_DELTA_LINE, clientX, clientY, bubbles: true, cancelable: true };
    for (let turned = Math.min(Math.abs(lines), MOST_TURNS); turned > 0; turned -= 1) {
      element.dispatchEvent(new WheelEvent("wheel", turn));
    }
  }

  /** Whether scrolling moves the scrollback, and not what a program draws. */
  get _ours() {
    const { buffer, modes } = this._screen.terminal;
    return buffer.active.type === "normal" && modes.mouseTrackingMode === "none";
  }

  _zoom() {
    const { distance: before, fontSize } = /** @type {{distance: number, fontSize: number}} */ (this._pinch);
    if (this._fingers.size === 2) this._screen.enlarge(Math.round((fontSize * this._distance()) / Math.max(1, before)));
  }

  _distance() {
    const [one, other] = this._fingers.values();
    return one && other ? distance(one, other) : 1;
  }

  _press() {
    this._fingers.clear();
    void offerText(text(this._screen.terminal));
  }
}

/**
 * @param {PointerEvent} one
 * @param {PointerEvent} other
 */
function distance(one, other) {
  return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
}

/** The lines up to the last one in sight. @param {import("./vendor/xterm.js").Terminal} terminal */
function text({ buffer: { active }, rows }) {
  const end = Math.min(active.viewportY + rows, active.length);
  return textOf(active, end - OFFERED_LINES, end).trimEnd();
}
