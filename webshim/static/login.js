/** Logging in: by the ticket of a link, or by name and password. */

import { call, persistently, Refused, sentence } from "./api.js";
import { asked, offerLine } from "./dialogs.js";
import { byId } from "./dom.js";
import { underWay } from "./files.js";
import { ssh } from "./links.js";
import { notify } from "./notices.js";

/** The link's ticket, which boot.js has taken out of the address; null when there is none. */
export function takeTicket() {
  const { loginTicket } = /** @type {{loginTicket?: string | null}} */ (globalThis);
  Object.assign(globalThis, { loginTicket: null });
  return loginTicket ?? null;
}

/** A link that is opened where the page is already changes the fragment only: the page begins again with it. */
export function followLoginLinks() {
  window.addEventListener("hashchange", () => {
    if (!location.hash.startsWith("#login=")) return;
    if (!underWay.size) return location.reload();
    // The browser would ask whether to leave, and the ticket stay in the address of who does not.
    history.replaceState(null, "", location.pathname + location.search);
    notify("Files are under way. Open the login link again when they are there.");
  });
}

const OTHER_USER = 409;
/** Which boot.js has opened, so that no login before this module is missed. @type {BroadcastChannel} */
const channel = /** @type {any} */ (globalThis).logins;

/**
 * Who is logged in, after the link's ticket has been used. Shows the login page, and waits, where nobody is.
 *
 * @param {string | null} ticket
 * @returns {Promise<import("./api.js").Me>}
 */
export async function loggedIn(ticket) {
  const me = await identified(ticket);
  followUsers(me.user);
  channel.postMessage("");
  return me;
}

/**
 * @param {string | null} ticket
 * @returns {Promise<import("./api.js").Me>}
 */
async function identified(ticket) {
  let complaint = "";
  if (ticket !== null) {
    try {
      const me = await follow(ticket);
      if (me !== null) return me;
    } catch (error) {
      complaint = `${sentence(error)} A link works once, for a minute.`;
    }
  }
  try {
    return await persistently("me");
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 401) throw error;
    return ask(error, complaint);
  }
}

/**
 * Use the link. Who is another user here is asked first: the sender of the link could look at what is done by it.
 *
 * @param {string} ticket
 * @returns {Promise<import("./api.js").Me | null>} null: not used
 */
async function follow(ticket) {
  try {
    return await call("login", "POST", { link: ticket });
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== OTHER_USER) throw error;
    byId("loading").hidden = true;
    byId("switch-text").textContent = error.message;
    if ((await asked("switch-dialog")) !== "switch") return null;
  }
  return call("login", "POST", { link: ticket, switch: true });
}

/**
 * @param {Refused} refused
 * @param {string} complaint
 * @returns {Promise<import("./api.js").Me>}
 */
function ask({ ways, sshPort }, complaint) {
  /** @type {HTMLFormElement} */
  const form = byId("login-form");
  form.hidden = !ways.includes("password");
  byId("login-link").hidden = !ways.includes("link");
  offerLine("login", `${ssh(sshPort)} -s YOU@${location.hostname} web`);
  const alone = comeAlong();
  complain(complaint);
  byId("loading").hidden = true;
  byId("login").hidden = false;
  /** @type {HTMLInputElement} */ (byId("login-user")).focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const me = await call("login", "POST", Object.fromEntries(new FormData(form)));
        alone();
        form.reset();
        byId("login").hidden = true;
        resolve(me);
      } catch (error) {
        complain(sentence(error));
        /** @type {HTMLInputElement} */ (form.elements.namedItem("password")).select();
      }
    });
  });
}

/**
 * A login in another tab is this one's as well.
 *
 * @returns {() => void} stops it
 */
function comeAlong() {
  const waiting = new AbortController();
  const look = async () => {
    if (!document.hidden && (await call("me").catch(() => null))) location.reload();
  };
  document.addEventListener("visibilitychange", () => void look(), waiting);
  channel.addEventListener("message", () => void look(), waiting);
  return () => waiting.abort();
}

/**
 * Another window of this browser has logged in somebody else: what is requested here is theirs from now on.
 *
 * @param {string} user who is logged in here
 */
function followUsers(user) {
  channel.addEventListener("message", async () => {
    const me = await call("me").catch(() => null);
    if (me && me.user !== user) location.reload();
  });
}

/** @param {string} text */
function complain(text) {
  byId("login-error").textContent = text;
  byId("login-error").hidden = !text;
}

/** On the home page: who is logged in, and how they come by ssh. @param {import("./api.js").Me} me */
export function describeUser({ user, ssh_port }) {
  offerLine("own", `${ssh(ssh_port)} ${user}@${location.hostname}`);
  byId("who").textContent = `Logged in as ${user}.`;
}
