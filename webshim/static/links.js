/** Links in the terminal's output. The output is hostile: only http(s), nothing of this page goes along, no disguise. */

import { asked } from "./dialogs.js";
import { byId } from "./dom.js";

/**
 * @param {MouseEvent} _event
 * @param {string} target
 * @param {unknown} [range] given for a link whose text is not its target (OSC 8)
 */
export function followLink(_event, target, range) {
  const url = webAddress(target);
  if (url === null) return;
  if (range === undefined) open(url);
  else void ask(url);
}

/**
 * @param {string} target
 * @returns {URL | null}
 */
function webAddress(target) {
  const url = URL.parse(target);
  return url !== null && ["http:", "https:"].includes(url.protocol) ? url : null;
}

/** @param {URL} url */
function open(url) {
  window.open(url, "_blank", "noopener,noreferrer");
}

/** @param {URL} url */
async function ask(url) {
  byId("link-target").textContent = url.href;
  if ((await asked("link-dialog")) === "open") open(url);
}
