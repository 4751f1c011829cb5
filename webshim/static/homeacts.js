/** What is done to a card of the home page, after a question. They throw `Refused`. */

import { call, ownName } from "./api.js";
import { asked } from "./dialogs.js";
import { byId } from "./dom.js";
import { endHeld } from "./held.js";

/** @param {import("./home.js").Listed} listed */
export async function end({ id, state, called, name }) {
  if (state !== "ended" && !(await sure(called, losses(name)))) return;
  await call(`sessions/${encodeURIComponent(id)}`, "DELETE");
}

/** @param {import("./home.js").Sandbox} sandbox */
export async function endSandbox({ name, home }) {
  const words = `All that runs in it is ended, also for others who are in it. ${home ? "The files in its home are kept." : "Its files are gone."}`;
  if (await sure(`the sandbox ${name}`, words)) await call(`sandboxes/${encodeURIComponent(name)}`, "DELETE");
}

/** @param {import("./held.js").HeldSession} held @param {string} what */
export async function endHeldSession({ sandbox, name }, what) {
  if (await sure(what, losses(sandbox))) await endHeld(sandbox, name);
}

/** @param {string | null} sandbox */
function losses(sandbox) {
  return ownName(sandbox) ? "What runs in it is ended; its sandbox stays." : "What runs in it is ended, and its sandbox with it.";
}

/** @param {import("./home.js").Described} described */
export async function rename({ id, label }) {
  if (asks()) return;
  /** @type {HTMLInputElement} */
  const field = byId("rename-label");
  field.value = label ?? "";
  if ((await asked("rename-dialog")) === "rename") await call(`sessions/${encodeURIComponent(id)}`, "PATCH", { label: field.value });
}

/** A question is there, and has one answer. */
function asks() {
  return document.querySelector("dialog[open]") !== null;
}

/**
 * @param {string} what
 * @param {string} words
 */
async function sure(what, words) {
  if (asks()) return false;
  byId("end-title").textContent = `End ${what}?`;
  byId("end-words").textContent = words;
  return (await asked("end-dialog")) === "end";
}
