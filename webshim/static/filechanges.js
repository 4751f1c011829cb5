/** Files are deleted and renamed, and folders made, each after a question. What is refused stands in the question again. */

import { call, filesRoute, sentence } from "./api.js";
import { AS_TYPED, asked, build, label } from "./dialogs.js";
import { byId, element } from "./dom.js";
import { complain, notify } from "./notices.js";

/** @typedef {import("./filelist.js").Entry} Entry */

// The sandbox has two minutes.
const LONGEST_MS = 130_000;
const SLOW_MS = 2000;
const [DELETE, NAME] = ["delete-file", "name-file"];
const part = (/** @type {string} */ dialog, /** @type {string} */ name, className = "") => element("p", { id: `${dialog}-${name}`, className });
const ends = (/** @type {string} */ dialog) => [part(dialog, "where", "small"), part(dialog, "problem", "bad")];
const field = element("input", { id: "name-file-name", required: true, maxLength: 255, pattern: "[^\\/]+", title: "A name without /", ...AS_TYPED });
build(DELETE, "Delete it?", [part(DELETE, "words"), ...ends(DELETE)], { cancel: "Cancel", delete: "Delete" }, "danger");
build(NAME, "Rename", [label("Name", field), ...ends(NAME)], { cancel: "Cancel", apply: "Rename" });
byId(`${DELETE}-dialog`).setAttribute("aria-describedby", `${DELETE}-words ${DELETE}-where ${DELETE}-problem`);
byId(`${NAME}-dialog`).setAttribute("aria-describedby", `${NAME}-where ${NAME}-problem`);

/**
 * Ask until it is done, or no longer wanted.
 *
 * @param {string} name of the dialog
 * @param {string} folder that it is about
 * @param {() => Promise<unknown>} act
 * @returns {Promise<boolean>} whether it was done
 */
async function untilDone(name, folder, act) {
  const problem = byId(`${name}-problem`);
  problem.textContent = "";
  byId(`${name}-where`).replaceChildren("In ", element("bdi", {}, folder));
  while ((await asked(`${name}-dialog`)) !== "cancel") {
    const slow = setTimeout(() => notify(`A change in ${folder} is under way.`), SLOW_MS);
    try {
      await act();
      return true;
    } catch (error) {
      problem.textContent = sentence(error);
      if (isElsewhere()) {
        complain(`A change in ${folder} failed. ${sentence(error)}`);
        return false;
      }
    } finally {
      clearTimeout(slow);
    }
  }
  return false;
}

/** Whether a person types where a question would take the keys. */
function isElsewhere() {
  const { activeElement: focused } = document;
  return document.querySelector("dialog[open]") !== null || !(focused === document.body || byId("files").contains(focused));
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
  byId(`${DELETE}-words`).textContent = `${losses}This cannot be undone.`;
  const route = filesRoute(id, { path: folder + name, ...(tree ? { tree: "1" } : {}) });
  return untilDone(DELETE, folder, () => call(route, "DELETE", undefined, LONGEST_MS));
}

/**
 * @param {string} id
 * @param {string} folder ends in a slash
 * @param {string} name
 * @returns {Promise<string | null>} the new name
 */
export async function rename(id, folder, name) {
  begin("Rename", "Rename", name);
  // Without the line ends of the name.
  const { value: shown } = field;
  const renamed = () => (field.value === shown ? name : field.value);
  const done = await untilDone(NAME, folder, async () => {
    if (renamed() !== name) await call(filesRoute(id, { path: folder + name }), "PATCH", { to: folder + renamed() }, LONGEST_MS);
  });
  return done ? renamed() : null;
}

/**
 * @param {string} id
 * @param {string} folder ends in a slash
 * @returns {Promise<string | null>} its name
 */
export async function makeFolder(id, folder) {
  begin("New folder", "Make", "");
  return (await untilDone(NAME, folder, () => call(filesRoute(id, { path: folder + field.value }), "POST", {}))) ? field.value : null;
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
