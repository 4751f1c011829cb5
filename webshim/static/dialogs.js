/** The page's questions: each opens a dialog of index.html and gives its answer. */

import { ownName } from "./api.js";
import { copy } from "./clipboard.js";
import { byId } from "./dom.js";

const PREVIEW_LINES = 8;
const PREVIEW_CHARACTERS = 800;

/**
 * @param {string} id
 * @returns {Promise<string>} the value of the button; `cancel` for Escape
 */
export function asked(id) {
  /** @type {HTMLDialogElement} */
  const dialog = byId(id);
  dialog.returnValue = "cancel";
  // No submit button, so that Enter in a field is not a "no".
  const cancel = dialog.querySelector("[value=cancel]");
  const no = () => dialog.close("cancel");
  cancel?.addEventListener("click", no);
  return new Promise((resolve) => {
    const closed = () => {
      cancel?.removeEventListener("click", no);
      // Chromium empties it on Escape.
      resolve(dialog.returnValue || "cancel");
    };
    dialog.addEventListener("close", closed, { once: true });
    dialog.showModal();
  });
}

/**
 * @param {{name: string, description: string}[]} profiles
 * @param {{profile: string | null, name: string | null}} [before] what was wanted, and is to be another
 * @returns {Promise<{profile: string | null, name: string | null} | null>} no profile: the sandbox's own, or the default
 */
export async function askForSession(profiles, before) {
  /** @type {HTMLSelectElement} */
  const profile = byId("new-profile");
  /** @type {HTMLInputElement} */
  const name = byId("new-name");
  if (!profile.options.length) {
    // A named sandbox that is there has a profile already.
    profile.append(new Option("usual", ""), ...profiles.map((one) => new Option(one.name, one.name)));
    // Who may not have the default must say which, or name one.
    if (profiles[0]?.name !== "default") profile.selectedIndex = 1;
    profile.addEventListener("change", () => describe(profiles));
  }
  if (before) profile.value = before.profile ?? "";
  describe(profiles);
  name.value = ownName(before?.name ?? null) ?? "";
  if ((await asked("new-dialog")) !== "open") return null;
  return { profile: profile.value || null, name: name.value.trim() || null };
}

/** The words for the chosen profile; the usual one is the first. @param {{name: string, description: string}[]} profiles */
function describe(profiles) {
  const { value } = /** @type {HTMLSelectElement} */ (byId("new-profile"));
  byId("new-about").textContent = (profiles.find(({ name }) => name === value) ?? profiles[0])?.description ?? "";
}

/** @returns {Promise<string>} `end`, `leave` or `cancel` */
export function askToClose() {
  return asked("close-dialog");
}

/** @returns {Promise<string | null>} */
export async function askForPath() {
  /** @type {HTMLInputElement} */
  const path = byId("download-path");
  if ((await asked("download-dialog")) !== "open") return null;
  return path.value.trim() || null;
}

/** What a person pastes into a field, where the page itself may not read the clipboard. @returns {Promise<string | null>} */
export async function askForText() {
  /** @type {HTMLTextAreaElement} */
  const field = byId("paste-text");
  field.value = "";
  return (await asked("paste-dialog")) === "paste" ? field.value : null;
}

/**
 * @param {string} text
 * @param {boolean} runs whether the program runs each line as it comes
 */
export async function askToPaste(text, runs) {
  const lines = text.trimEnd().split(/\r\n|\r|\n/);
  byId("ask-paste-title").textContent = `Paste ${lines.length > 1 ? `${lines.length} lines` : `${text.length} characters`}?`;
  byId("ask-paste-words").textContent = runs ? "The program would run them one after the other as they come." : "That is a lot of text.";
  byId("ask-paste-text").textContent = lines.slice(0, PREVIEW_LINES).join("\n").slice(0, PREVIEW_CHARACTERS);
  return (await asked("ask-paste-dialog")) === "paste";
}

/** A line of text with a button that copies it. @param {string} name of both @param {string} line */
export function offerLine(name, line) {
  byId(`${name}-command`).textContent = line;
  const button = byId(`${name}-copy`);
  button.addEventListener("click", async () => {
    if (await copy(line)) button.textContent = "Copied";
  });
}

/** The terminal's text as the browser selects and copies it. @param {string} text */
export async function offerText(text) {
  const shown = byId("select-text");
  const answer = asked("select-dialog");
  shown.textContent = text;
  shown.scrollTop = shown.scrollHeight;
  if ((await answer) === "copy") await copy(text);
  shown.textContent = "";
}
