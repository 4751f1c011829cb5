/** Copy and paste, and what a program may do with the clipboard: write it, with the person's consent; never read it. */

import { notify } from "./notices.js";

// OSC 52 beyond this is no selection that somebody made.
const LONGEST_COPY = 1 << 20;

/**
 * @param {string} text
 * @returns {Promise<boolean>} whether it is on the clipboard now
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS, beyond loopback, there is no navigator.clipboard.
    return copyBySelection(text);
  }
}

/** @param {string} text */
function copyBySelection(text) {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return copied;
}

/**
 * The clipboard's text; null where the browser does not give it to a page.
 *
 * @returns {Promise<string | null>}
 */
export async function pasted() {
  try {
    return await navigator.clipboard.readText();
  } catch {
    return null;
  }
}

/**
 * Text as it may go into a terminal: an escape character in it could end bracketed paste and run what follows.
 *
 * @param {string} text
 */
export function harmless(text) {
  return text.replaceAll(/[\x1b\x9b]/g, "");
}

/** Pictures on the clipboard: Ctrl+Shift+V is "as plain text" for the browser, and brings none. @returns {Promise<File[]>} */
async function pictures() {
  try {
    const found = [];
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((one) => one.startsWith("image/"));
      if (type) found.push(new File([await item.getType(type)], "picture", { type }));
    }
    return found;
  } catch {
    return [];
  }
}

/**
 * What is pasted by key or menu, before xterm.js has it.
 *
 * @param {HTMLElement} box
 * @param {(text: string) => void} text
 * @param {(files: File[]) => void} files those that come without a text
 */
export function takePastes(box, text, files) {
  box.addEventListener(
    "paste",
    (event) => {
      const words = event.clipboardData?.getData("text/plain");
      const carried = [...(event.clipboardData?.files ?? [])];
      event.preventDefault();
      event.stopPropagation();
      if (words) text(words);
      else if (carried.length) files(carried);
      else void pictures().then((found) => found.length && files(found));
    },
    { capture: true },
  );
}

/**
 * OSC 52. The add-on for it answers questions too, so this is our own.
 *
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @param {() => boolean} live false while old output is replayed
 */
export function acceptCopies(terminal, live) {
  terminal.parser.registerOscHandler(52, (content) => {
    const payload = content.slice(content.indexOf(";") + 1);
    if (live() && payload !== "?") void offer(decoded(payload));
    return true;
  });
}

/** @param {string | null} text */
async function offer(text) {
  if (!text) return;
  if (text.length > LONGEST_COPY) {
    notify("A program tried to copy more than 1 MiB; it was refused.");
    return;
  }
  const size = `${text.length} ${text.length === 1 ? "character" : "characters"}`;
  // The browser's own measure of a recent key or click in this page.
  if (navigator.userActivation.isActive && (await copy(text))) {
    notify(`A program copied ${size} to the clipboard.`);
    return;
  }
  notify(`A program wants to copy ${size} to the clipboard.`, { label: "Copy", act: () => void copy(text) });
}

/** @param {string} base64 */
function decoded(base64) {
  try {
    return new TextDecoder().decode(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)));
  } catch {
    return null;
  }
}
