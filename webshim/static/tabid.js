/** A name for this browser tab: the server gives the same tab its session back without asking. */

const KEY = "sshgate.tab";

/** @type {Promise<string>} */
export const tabId = claim();

async function claim() {
  const kept = read();
  // "Duplicate tab" copies the storage; the lock tells which of the two has the name.
  if (kept !== null && (await lock(kept))) return kept;
  const fresh = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  await lock(fresh);
  try {
    sessionStorage.setItem(KEY, fresh);
  } catch {
    // Without storage a reload is another tab.
  }
  return fresh;
}

function read() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/**
 * Hold the name as long as this page lives.
 *
 * @param {string} name
 * @returns {Promise<boolean>} false when another page holds it
 */
function lock(name) {
  // Without TLS, beyond loopback, there are no locks.
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((settle) => {
    void navigator.locks.request(`sshgate.tab.${name}`, { ifAvailable: true }, (held) => {
      settle(held !== null);
      return held === null ? undefined : new Promise(() => {});
    });
  });
}
