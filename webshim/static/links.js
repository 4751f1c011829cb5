/** Links in the terminal's output. The output is hostile: only http(s), nothing of this page goes along, no disguise. */

import { MAC } from "./actions.js";
import { copy } from "./clipboard.js";
import { asked } from "./dialogs.js";
import { byId } from "./dom.js";

// What a program in the sandbox calls itself. In a browser these names lead to the viewer's own machine.
const SANDBOX = /^(localhost|.*\.localhost|127\.[\d.]+|0\.0\.0\.0|\[::1?\])$/;
const HINT = `${MAC ? "⌘" : "Ctrl"}+click opens the link`;

let finger = false;
document.addEventListener("pointerdown", ({ pointerType }) => (finger = pointerType === "touch"), { capture: true });

/**
 * What xterm.js needs to know of links. A plain click belongs to selecting; a finger has no Ctrl.
 *
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @param {(url: URL) => void} local a link to the sandbox itself was opened
 * @param {boolean} disguised whether the text of such a link may be another than its target (OSC 8)
 */
export function links(terminal, local, disguised) {
  return {
    allowNonHttpProtocols: false,
    /** @param {MouseEvent} event @param {string} target */
    activate: (event, target) => {
      const meant = finger || (MAC ? event.metaKey : event.ctrlKey);
      const url = webAddress(target);
      if (!meant || event.button !== 0 || terminal.hasSelection() || url === null) return;
      if (SANDBOX.test(url.hostname)) local(url);
      else if (disguised) void ask(url);
      else open(url);
    },
    /** @param {MouseEvent} _event @param {string} target */
    hover: (_event, target) => {
      terminal.element?.setAttribute("title", HINT);
      terminal.element?.setAttribute("data-link", target); // for the menu
    },
    leave: () => ["title", "data-link"].forEach((name) => terminal.element?.removeAttribute(name)),
  };
}

/** @param {number} port of ssh @returns {string} the command's beginning */
export function ssh(port) {
  return port === 22 ? "ssh" : `ssh -p ${port}`;
}

/**
 * How a port of the sandbox is reached: by ssh from the viewer's machine.
 *
 * @param {URL} url
 * @param {string | null} login what to log in as; null: a sandbox without a name, which ssh cannot find
 * @param {number} port of ssh
 */
export async function askAboutPort(url, login, port) {
  const there = url.port || (url.protocol === "https:" ? "443" : "80");
  const command = `${ssh(port)} -L ${there}:localhost:${there} ${login}@${location.hostname}`;
  byId("port-text").textContent =
    login === null
      ? `This is port ${there} of the sandbox, not of your machine. Only a named sandbox can be reached by ssh.`
      : `This is port ${there} of the sandbox. Run this on your machine, then open the link there.`;
  byId("port-command").textContent = command;
  byId("port-command").hidden = byId("port-copy").hidden = login === null;
  if ((await asked("port-dialog")) === "copy") await copy(command);
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
