/** A tab that is dragged onto a terminal moves there: beside that terminal, above it or below. */

import { byId, element } from "./dom.js";
import { MOST } from "./layout.js";
import { complain } from "./notices.js";

// Less is a press that was not quite still.
const FAR_PIXELS = 8;

/**
 * @typedef {object} Target
 * @property {import("./session.js").Session} session
 * @property {boolean} across whether it is beside that one, not above or below
 * @property {boolean} before
 */

/**
 * @param {PointerEvent} pressed on the row of tabs; a finger scrolls that
 * @param {import("./layout.js").Layouts} layouts
 */
export function drag({ target, button, pointerType, clientX, clientY }, layouts) {
  const tab = target instanceof Element && target.closest(".tab")?.querySelector("[role=tab]");
  const moved = tab && layouts.all.get(byId(tab.getAttribute("aria-controls") ?? ""));
  if (!moved || button || pointerType === "touch") return;
  const words = element("span", {});
  const frame = element("div", { className: "drop" }, words);
  const stop = new AbortController();
  const end = () => (stop.abort(), frame.remove());
  /** @param {PointerEvent} event */
  const follow = (event) => {
    // The button was let go where no page hears of it.
    if (!event.buttons) return end();
    if (!frame.isConnected && Math.hypot(event.clientX - clientX, event.clientY - clientY) < FAR_PIXELS) return;
    const found = targetAt(event, moved, layouts);
    if (found) show(frame, words, found);
    else frame.remove();
  };
  /** @param {PointerEvent} event */
  const drop = (event) => {
    const found = frame.isConnected ? targetAt(event, moved, layouts) : null;
    end();
    if (found) join(moved, found, layouts);
  };
  window.addEventListener("pointermove", follow, { signal: stop.signal });
  window.addEventListener("pointerup", drop, { signal: stop.signal });
  window.addEventListener("pointercancel", end, { signal: stop.signal });
  /** @param {KeyboardEvent} event */
  const key = (event) => {
    if (event.key !== "Escape" || !frame.isConnected) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    end();
  };
  window.addEventListener("keydown", key, { capture: true, signal: stop.signal });
}

/**
 * @param {PointerEvent} event
 * @param {import("./layout.js").Layout} moved
 * @param {import("./layout.js").Layouts} layouts
 * @returns {Target | null} the half of a terminal below the pointer
 */
function targetAt({ clientX, clientY }, moved, layouts) {
  const { shown } = layouts;
  const below = document.elementsFromPoint(clientX, clientY);
  const session = shown === moved ? undefined : shown?.sessions.find(({ panel }) => below.includes(panel));
  if (!session) return null;
  const { left, top, width, height } = session.panel.getBoundingClientRect();
  const [x, y] = [(clientX - left) / width - 0.5, (clientY - top) / height - 0.5];
  const across = Math.abs(x) > Math.abs(y);
  return { session, across, before: (across ? x : y) < 0 };
}

/**
 * @param {HTMLElement} frame
 * @param {HTMLElement} words
 * @param {Target} target
 */
function show(frame, words, { session, across, before }) {
  const half = (/** @type {boolean} */ divided) => (divided ? "50%" : "0");
  frame.style.inset = [!across && !before, across && before, !across && before, across && !before].map(half).join(" ");
  words.textContent = `To the ${across ? (before ? "left" : "right") : before ? "top" : "bottom"} of this terminal`;
  session.panel.append(frame);
}

/**
 * All of the tab that has a session, beside the terminal that is shown: what dragging does, by a command.
 *
 * @param {import("./session.js").Session} session
 * @param {import("./layout.js").Layouts} layouts
 */
export function bring(session, layouts) {
  const [moved, to] = [layouts.of(session), layouts.shown];
  if (moved && to && moved !== to) join(moved, { session: to.focused, across: true, before: false }, layouts);
}

/**
 * All of a tab, one beside the other.
 *
 * @param {import("./layout.js").Layout} moved
 * @param {Target} target
 * @param {import("./layout.js").Layouts} layouts
 */
function join(moved, { session, across, before }, layouts) {
  const layout = layouts.of(session);
  const all = moved.sessions;
  if (!layout) return;
  if (layout.sessions.length + all.length > MOST) return complain(`A tab has ${MOST} terminals at most.`);
  for (const [index, one] of all.entries()) {
    layouts.remove(one);
    layout.focus(index ? all[index - 1] : session);
    layout.split(one, across, before && !index);
  }
  layout.show();
}
