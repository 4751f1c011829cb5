/**
 * The list of sessions as it changes: one stream of events for all tabs of this browser, since a browser opens few
 * connections to one host. The tab that has the lock reads it, and passes it on to the others.
 */

const NAME = "sshgate.sessions";
// The browser connects again by itself after a lost connection, not after a refusal.
const REFUSED_MS = 20_000;

/**
 * Where a browser has no locks (without TLS, beyond loopback) there is no stream, and the page asks now and then.
 *
 * @param {string} user whose list it is; another tab may have logged in somebody else
 * @param {(sessions: import("./api.js").Described[]) => void} changed
 */
export function follow(user, changed) {
  if (!navigator.locks) return;
  const channel = new BroadcastChannel(NAME);
  channel.addEventListener("message", ({ data }) => data.user === user && changed(data.sessions));
  void navigator.locks.request(NAME, () => new Promise(() => read((sessions) => (channel.postMessage({ user, sessions }), changed(sessions)))));
}

/** @param {(sessions: import("./api.js").Described[]) => void} changed */
function read(changed) {
  const source = new EventSource("api/events");
  source.addEventListener("sessions", ({ data }) => changed(JSON.parse(data).sessions));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(() => read(changed), REFUSED_MS);
  });
}
