/** Files are deleted and renamed, and folders made, each after a question. What is refused stands in the question. */

import { call, filesRoute, sentence } from "./api.js";
import { AS_TYPED, asked, build, label } from "./dialogs.js";
import { byId, element } from "./dom.js";

/** @typedef {import("./filespanel.js").Entry} Entry */

// The sandbox has two minutes.
const LONGEST_MS = 130_000;
const [DELETE, NAME] = ["delete-file", "name-file"];
const problem = (/** @type {string} */ dialog) => element("p", { id: `${dialog}-problem`, className: "bad" });
const words = element("p");
const field = element("input", { id: "name-file-name", required: true, maxLength: 255, pattern: "[^\\/]+", title: "A name without /", ...AS_TYPED });
build(DELETE, "Delete it?", [words, problem(DELETE)], { cancel: "Cancel", delete: "Delete" }, "danger");
build(NAME, "Rename", [label("Name", field), problem(NAME)], { cancel: "Cancel", apply: "Rename" });
for (const name of [DELETE, NAME]) byId(`${name}-dialog`).setAttribute("aria-describedby", `${name}-problem`);

/**
 * Ask until it is done, or no longer wanted.
 *
 * @param {string} name of the dialog
 * @param {() => Promise<unknown>} act
 * @returns {Promise<boolean>} whether it was done
 */
async function untilDone(name, act) {
  const problem = byId(`${name}-problem`);
  problem.textContent = "";
  while ((await asked(`${name}-dialog`)) !== "cancel") {
    try {
      await act();
      return true;
    } catch (error) {
      problem.textContent = sentence(error);
    }
  }
  return false;
}

/**
 * @param {string} id
 * @param {string} folder ends in a slash
 * @param {Entry} entry
 */
export function remove(id, folder, { name, kind }) {
  const tree = kind === "directory";
  const what = tree ? "the folder " : kind === "link" ? "the link " : "";
  const losses = tree ? "All that is in it is deleted as well. " : kind === "link" ? "What it leads to stays. " : "";
  byId(`${DELETE}-title`).replaceChildren(`Delete ${what}`, element("bdi", {}, name), "?");
  words.textContent = `${losses}This cannot be undone.`;
  return untilDone(DELETE, () => call(filesRoute(id, { path: folder + name, tree: tree ? "1" : "" }), "DELETE", undefined, LONGEST_MS));
}

/**
 * @param {string} id
 * @param {string} folder ends in a slash
 * @param {string} name
 * @returns {Promise<string | null>} the new name
 */
export async function rename(id, folder, name) {
  begin("Rename", "Rename", name);
  const done = await untilDone(NAME, async () => {
    if (field.value !== name) await call(filesRoute(id, { path: folder + name }), "PATCH", { to: folder + field.value }, LONGEST_MS);
  });
  return done ? field.value : null;
}

/**
 * @param {string} id
 * @param {string} folder ends in a slash
 * @returns {Promise<string | null>} its name
 */
export async function makeFolder(id, folder) {
  begin("New folder", "Make", "");
  return (await untilDone(NAME, () => call(filesRoute(id, { path: folder + field.value }), "POST", {}))) ? field.value : null;
}

/**
 * @param {string} title
 * @param {string} button
 * @param {string} name
 */
function begin(title, button, name) {
  byId(`${NAME}-title`).textContent = title;
  byId(`${NAME}-apply`).textContent = button;
  field.value = name;
  // What is changed most often: all but the ending.
  field.setSelectionRange(0, name.lastIndexOf(".") > 0 ? name.lastIndexOf(".") : name.length);
}
