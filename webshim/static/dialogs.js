/** The page's questions: each opens a dialog and gives its answer. */

import { ownName } from "./api.js";
import { copy } from "./clipboard.js";
import { byId, element } from "./dom.js";

const PREVIEW_LINES = 8;
const PREVIEW_CHARACTERS = 800;
// No help with what is no prose.
export const AS_TYPED = { autocomplete: "off", autocapitalize: "none", spellcheck: false };

const words = (/** @type {string} */ id) => element("p", { id });
const small = (/** @type {string} */ text) => element("p", { className: "small" }, text);
const code = (/** @type {string} */ id) => element("p", {}, element("code", { id }));
/** @param {string} name @param {HTMLElement} field */
export const label = (name, field) => element("label", {}, `${name} `, field);
/** Text to look at and to select, by keyboard too. @param {string} name of the dialog */
const shown = (name) => element("pre", { id: `${name}-text`, role: "region", "aria-labelledby": `${name}-title`, tabIndex: 0 });

/**
 * @param {string} name
 * @param {string} title
 * @param {HTMLElement[]} parts
 * @param {Record<string, string>} answers by value, `cancel` first; the last one is the usual one
 * @param {string} [kind] of button, for the last one
 */
export function build(name, title, parts, answers, kind = "primary") {
  const buttons = Object.entries(answers).map(([value, text]) =>
    // No submit button for "no", so that Enter in a field is not one.
    element("button", { id: `${name}-${value}`, type: value === "cancel" ? "button" : "submit", className: "button", value }, text),
  );
  buttons.at(-1)?.classList.add(kind);
  const heading = element("h2", { id: `${name}-title` }, title);
  const form = element("form", { method: "dialog" }, heading, ...parts, element("div", { className: "buttons" }, ...buttons));
  const dialog = element("dialog", { id: `${name}-dialog`, "aria-labelledby": heading.id }, form);
  document.body.append(dialog);
  return dialog;
}

const NAME = {
  id: "new-name",
  maxLength: 40,
  pattern: "[a-z0-9]([a-z0-9\\-]{0,38}[a-z0-9])?",
  title: "Lower-case letters, digits and dashes",
  placeholder: "optional",
  ...AS_TYPED,
};
build(
  "new",
  "New terminal",
  [
    label("Profile", element("select", { id: "new-profile", "aria-describedby": "new-about" })),
    element("p", { id: "new-about", className: "small", role: "status" }),
    label("Name", element("input", NAME)),
    small("A named sandbox stays for a while when you leave, and ssh finds it under the same name."),
  ],
  { cancel: "Cancel", open: "Open" },
);
build(
  "close",
  "End this terminal?",
  [element("p", {}, "What runs in it is ended. You can also leave it running and come back to it.")],
  { cancel: "Cancel", leave: "Leave it running", end: "End it" },
  "danger",
);
build("end", "End it?", [words("end-words")], { cancel: "Cancel", end: "End it" }, "danger");
build(
  "rename",
  "Rename this terminal",
  [label("Name", element("input", { id: "rename-label", maxLength: 80, placeholder: "its title, or its sandbox's name", ...AS_TYPED }))],
  { cancel: "Cancel", rename: "Rename" },
);
build(
  "switch",
  "Log in as somebody else?",
  [words("switch-text"), small("Go on only if you asked for this link yourself.")],
  { cancel: "Stay", switch: "Switch" },
);
build("link", "Open this link?", [code("link-target")], { cancel: "Cancel", open: "Open" });
build("port", "A port of the sandbox", [words("port-text"), code("port-command")], { cancel: "Close", copy: "Copy the command" });
build(
  "download",
  "Download a file",
  [
    label("Path", element("input", { id: "download-path", required: true, ...AS_TYPED })),
    small("From the working directory, or from / on."),
  ],
  { cancel: "Cancel", open: "Download" },
);
build(
  "paste",
  "Paste here",
  [
    small("The browser does not let this page read the clipboard. A long press in the field does."),
    element("textarea", { id: "paste-text", rows: 4, "aria-labelledby": "paste-title", ...AS_TYPED }),
  ],
  { cancel: "Cancel", paste: "Into the terminal" },
);
const askPaste = build("ask-paste", "Paste?", [words("ask-paste-words"), shown("ask-paste")], { cancel: "Cancel", paste: "Paste" });
askPaste.querySelector(".primary")?.setAttribute("autofocus", "");
build("select", "Select and copy", [shown("select")], { cancel: "Close", copy: "Copy all" }).className = "wide";

/**
 * @param {string} id
 * @returns {Promise<string>} the value of the button; `cancel` for Escape
 */
export function asked(id) {
  /** @type {HTMLDialogElement} */
  const dialog = byId(id);
  dialog.returnValue = "cancel";
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
 * @param {{profile?: string | null, name: string | null}} [before] what was wanted, and is to be another
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
  if (before?.profile !== undefined) profile.value = before.profile ?? "";
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

/** @param {number} count @returns {Promise<string>} `end`, `leave` or `cancel` */
export function askToClose(count) {
  byId("close-title").textContent = count > 1 ? `End these ${count} terminals?` : "End this terminal?";
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
  const field = byId("select-text");
  const answer = asked("select-dialog");
  field.textContent = text;
  field.scrollTop = field.scrollHeight;
  if ((await answer) === "copy") await copy(text);
  field.textContent = "";
}
