/** What a terminal holds, as a file: text, or a page with its colours. */

import { Refused, soon } from "./api.js";
import { saveBlob } from "./files.js";
import { textOf } from "./marks.js";

/**
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @param {string} name of the file, without its end
 * @param {"txt" | "html"} kind
 */
export async function saveOutput(terminal, name, kind) {
  const { active } = terminal.buffer;
  const content = kind === "txt" ? `${textOf(active, 0, active.length).trimEnd()}\n` : await page(terminal);
  saveBlob(new Blob([content], { type: kind === "txt" ? "text/plain" : "text/html" }), `${name.replaceAll(/[^\p{L}\p{N}._-]+/gu, "-")}.${kind}`);
}

/** @param {import("./vendor/xterm.js").Terminal} terminal */
async function page(terminal) {
  const { SerializeAddon } = (await soon(import("./vendor/addon-serialize.js"))) ?? {};
  if (!SerializeAddon) throw new Refused(0, "A part of the page did not arrive. Reload it, and try again.");
  const addon = new SerializeAddon();
  terminal.loadAddon(addon);
  const body = addon.serializeAsHTML({ includeGlobalBackground: true });
  addon.dispose();
  return `<!doctype html><meta charset="utf-8">${body}`;
}
