/** What the browser keeps for this page. Where its storage is off or full, this page itself does, for as long as it lives. */

/** @typedef {"sessionStorage" | "localStorage"} Area */

/** @type {Map<string, string | null>} */
const here = new Map();

/**
 * @param {Area} area
 * @param {string} key
 */
export function read(area, key) {
  const found = here.get(key);
  if (found !== undefined) return found;
  try {
    return globalThis[area].getItem(key);
  } catch {
    return null;
  }
}

/**
 * @param {Area} area
 * @param {string} key
 * @returns {any} null where there is none, or something that another version or hand has left
 */
export function readValue(area, key) {
  try {
    return JSON.parse(read(area, key) ?? "null");
  } catch {
    return null;
  }
}

/**
 * @param {Area} area
 * @param {string} key
 * @param {string | null} text null: none from now on
 */
export function write(area, key, text) {
  try {
    if (text === null) globalThis[area].removeItem(key);
    else globalThis[area].setItem(key, text);
    here.delete(key);
  } catch {
    here.set(key, text);
  }
}
