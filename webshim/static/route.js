/**
 * The page's addresses: `#/s/ID` a terminal, `#/n/NAME` one in a named sandbox, `#/new?profile=P&name=N` the dialog for a
 * new one. An address shows what is there, or asks; nothing is made, and no command is run, because somebody sent a link.
 */

import { ownName } from "./api.js";

/**
 * @typedef {object} Route one of the three
 * @property {string} [id]
 * @property {string} [sandbox]
 * @property {{profile: string | undefined, name: string | null}} [wanted]
 *
 * @typedef {{id: string | null, name: string | null}} Known a session with a tab, or in the list
 */

// As long as the dialog takes one.
const LONGEST_NAME = 40;

/** Where the address leads; null: nowhere. @returns {Route | null} */
export function readRoute() {
  const found = /^#\/(?:s\/(?<id>[\w-]+)|n\/(?<sandbox>[\w-]+)|new(?:\?(?<query>.*))?)$/.exec(location.hash)?.groups;
  if (!found) return null;
  const { id, sandbox, query } = found;
  if (id || sandbox) return { id, sandbox };
  const asked = new URLSearchParams(query);
  return { wanted: { profile: asked.get("profile") ?? undefined, name: asked.get("name")?.slice(0, LONGEST_NAME) ?? null } };
}

/**
 * @param {Route} route
 * @param {Known} session
 */
export function leadsTo(route, { id, name }) {
  return route.id !== undefined ? route.id === id : route.sandbox !== undefined && route.sandbox === name;
}

/**
 * The address of what is shown, in the place of the one before: the browser's "back" leaves the page, as it did.
 *
 * @param {Known | undefined} shown none: the home page
 * @param {Iterable<Known>} all the name of a sandbox says which only where it has one terminal
 */
export function writeRoute(shown, all) {
  // A link with a ticket, for which the page is about to begin again, stays for boot.js.
  if (location.hash && !location.hash.startsWith("#/")) return;
  const name = shown && ownName(shown.name);
  const alone = name && [...all].filter((other) => other.name === name).length === 1;
  const hash = alone ? `#/n/${name}` : shown?.id ? `#/s/${shown.id}` : "";
  if (location.hash !== hash) history.replaceState(null, "", location.pathname + location.search + hash);
}

/** Another address was typed or opened here. @param {(route: Route) => void} go */
export function followRoutes(go) {
  window.addEventListener("hashchange", () => {
    const route = readRoute();
    if (route) go(route);
  });
}
