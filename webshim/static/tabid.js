/** A name for this browser tab: the server gives the same tab its session back without asking. */

import { read, write } from "./storage.js";

const KEY = "sshgate.tab";
// Written as the page goes. "Duplicate tab" copies the storage of a page that is still there.
const LEFT = "sshgate.tab.left";
const WAIT_MS = 2000;

/** @type {Promise<string>} */
export const tabId = claim();

async function claim() {
  const left = read("sessionStorage", LEFT) !== null;
  if (left) write("sessionStorage", LEFT, null);
  const kept = read("sessionStorage", KEY);
  // The page before a reload may hold its lock for a moment longer. Otherwise the lock shows which of two has the name.
  if (kept !== null && (await lock(kept, left))) return kept;
  const fresh = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  await lock(fresh, false);
  // Without storage a reload is another tab.
  write("sessionStorage", KEY, fresh);
  return fresh;
}

/** The page goes; the next page in this browser tab may have its name. */
export function leaveTab() {
  write("sessionStorage", LEFT, "yes");
}

/**
 * Hold the name as long as this page lives.
 *
 * @param {string} name
 * @param {boolean} wait whether the page that holds it is going
 * @returns {Promise<boolean>} false when another page holds it
 */
function lock(name, wait) {
  // Without TLS, beyond loopback, there are no locks.
  if (!navigator.locks) return Promise.resolve(true);
  const how = wait ? { signal: AbortSignal.timeout(WAIT_MS) } : { ifAvailable: true };
  return new Promise((settle) => {
    const request = navigator.locks.request(`sshgate.tab.${name}`, how, (held) => {
      settle(held !== null);
      return held === null ? undefined : new Promise(() => {});
    });
    request.catch(() => settle(false));
  });
}
