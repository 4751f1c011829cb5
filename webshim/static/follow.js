/**
 * The list of sessions as it changes: one stream of events for all tabs of this browser, since a browser opens few
 * connections to one host. The tab that has the lock reads it, and passes it on to the others.
 */

import { call } from "./api.js";

const NAME = "sshgate.sessions";
// The browser connects again by itself after a lost connection, not after a refusal. Not all browsers at once.
const REFUSED_MS = 2000;
const SPREAD_MS = 3000;

/**
 * Where a browser has no locks (without TLS, beyond loopback) there is no stream, and the page asks now and then.
 *
 * @param {string} user whose list it is; another tab may have logged in somebody else
 * @param {(sessions: import("./api.js").Described[]) => void} changed
 */
export function follow(user, changed) {
  if (!navigator.locks) return;
  // Another gateway may have a path of this host.
  const name = `${NAME} ${document.baseURI} ${user}`;
  const channel = new BroadcastChannel(name);
  channel.addEventListener("message", ({ data }) => changed(data));
  const both = (/** @type {import("./api.js").Described[]} */ sessions) => (channel.postMessage(sessions), changed(sessions));
  void navigator.locks.request(name, () => new Promise(() => read(user, both)));
}

/**
 * @param {string} user
 * @param {(sessions: import("./api.js").Described[]) => void} changed
 */
function read(user, changed) {
  const source = new EventSource("api/events");
  source.addEventListener("sessions", ({ data }) => {
    const event = JSON.parse(data);
    if (event.user === user) changed(event.sessions);
  });
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return;
    call("me").catch((error) => error.status === 401 && location.reload());
    setTimeout(() => read(user, changed), REFUSED_MS + Math.random() * SPREAD_MS);
  });
}
