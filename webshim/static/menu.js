/** The menu of settings, and who is logged in. */

import { call } from "./api.js";
import { byId, element } from "./dom.js";
import { offerLine } from "./dialogs.js";
import { HELP, MAC } from "./keys.js";
import { ssh } from "./links.js";
import { change, onChange, settings } from "./settings.js";

/** @param {import("./api.js").Me} me */
export function fillMenu(me) {
  /** @type {HTMLSelectElement} */
  const theme = byId("theme");
  /** @type {HTMLSelectElement} */
  const bell = byId("bell");
  /** @type {HTMLSelectElement} */
  const option = byId("option");
  byId("option-row").hidden = !MAC;
  /** @type {HTMLInputElement} */
  const reader = byId("screen-reader");
  /** @type {HTMLInputElement} */
  const pasteWarning = byId("paste-warning");
  const show = () => {
    byId("font-size").textContent = String(settings().fontSize);
    theme.value = settings().theme;
    bell.value = settings().bell;
    option.value = settings().option;
    pasteWarning.checked = settings().pasteWarning;
    reader.checked = settings().screenReader;
  };
  byId("font-smaller").addEventListener("click", () => change({ fontSize: settings().fontSize - 1 }));
  byId("font-larger").addEventListener("click", () => change({ fontSize: settings().fontSize + 1 }));
  theme.addEventListener("change", () => change({ theme: /** @type {any} */ (theme.value) }));
  bell.addEventListener("change", () => change({ bell: /** @type {any} */ (bell.value) }));
  option.addEventListener("change", () => change({ option: /** @type {any} */ (option.value) }));
  pasteWarning.addEventListener("change", () => change({ pasteWarning: pasteWarning.checked }));
  reader.addEventListener("change", () => change({ screenReader: reader.checked }));
  // A login by the proxy in front of the gateway comes with each request: it can be ended only there.
  const proxied = me.method === "proxy";
  byId("user").textContent = proxied ? `${me.user}, logged in by a proxy: log out there` : me.user;
  byId("logout").hidden = proxied;
  byId("logout").addEventListener("click", () => void call("logout", "POST", {}).finally(() => location.reload()));
  fillKeys("key-help");
  onChange(show);
  show();
}

/** What stands on the home page however much runs. @param {import("./api.js").Me} me */
export function fillHome({ user, ssh_port }) {
  offerLine("own", `${ssh(ssh_port)} ${user}@${location.hostname}`);
  byId("who").textContent = `Logged in as ${user}.`;
  fillKeys("home-keys");
}

/** @param {string} id of a list */
function fillKeys(id) {
  for (const [keys, words] of HELP) byId(id).append(element("dt", {}, keys), element("dd", {}, words));
}

/** On a phone: the header's buttons, by name, behind one of them. */
export function fillMore() {
  const more = byId("more");
  /** @type {NodeListOf<HTMLButtonElement>} */
  const choices = more.querySelectorAll("[data-press]");
  const stands = (/** @type {HTMLButtonElement} */ { dataset }) => byId(dataset["press"] ?? "");
  more.addEventListener("beforetoggle", () => {
    for (const choice of choices) choice.disabled = stands(choice).matches(":disabled, [hidden] *");
  });
  for (const choice of choices) choice.addEventListener("click", () => (more.hidePopover(), stands(choice).click()));
}
