/** What is in a folder of the sandbox: it comes in parts, in the order of the server. */

import { call, filesRoute, Refused } from "./api.js";

/**
 * @typedef {object} Entry
 * @property {string} name
 * @property {boolean} text whether the name can be asked for
 * @property {"file" | "directory" | "link" | "other"} kind
 * @property {number} size
 * @property {string} mode
 * @property {number} mtime
 *
 * @typedef {object} Listed
 * @property {string} path
 * @property {number} total
 * @property {Entry[]} entries
 */

const NO_FOLDER = 400;
const compare = new Intl.Collator(undefined, { numeric: true }).compare;

/**
 * @param {string} id
 * @param {string} path of the folder; empty: where the shell is
 * @param {number} from entries to leave out
 * @returns {Promise<Listed>}
 */
const part = (id, path, from) => call(filesRoute(id, { list: "1", from: String(from), path }));

/**
 * As much of a folder as is shown of it already, and at least its first part.
 *
 * @param {string} id
 * @param {string} path
 * @param {Listed | null} shown
 */
export async function read(id, path, shown) {
  const listed = await part(id, path, 0);
  const wanted = listed.path === shown?.path ? Math.min(shown.entries.length, listed.total) : 0;
  while (listed.entries.length < wanted) {
    const { entries } = await part(id, listed.path, listed.entries.length);
    if (!entries.length) break;
    listed.entries.push(...entries);
  }
  return listed;
}

/**
 * What is shown of a folder, and its next part.
 *
 * @param {string} id
 * @param {Listed} shown
 */
export async function readMore(id, shown) {
  const listed = await part(id, shown.path, shown.entries.length);
  listed.entries.unshift(...shown.entries);
  return listed;
}

/**
 * @param {string} id
 * @param {string} path of a link
 */
export async function isFolder(id, path) {
  try {
    await part(id, path, 1_000_000);
    return true;
  } catch (error) {
    return !(error instanceof Refused && error.status === NO_FOLDER);
  }
}

/** Folders first, and numbers by their value. @param {Entry[]} entries */
export function sorted(entries) {
  const late = (/** @type {Entry} */ { kind }) => Number(kind !== "directory");
  return [...entries].sort((one, other) => late(one) - late(other) || compare(one.name, other.name));
}
