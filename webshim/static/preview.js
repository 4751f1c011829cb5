/** A file of the sandbox to look at: text as text, never as markup, and pictures. */

import { fileUrl, reach, refusal, sentence } from "./api.js";
import { element } from "./dom.js";
import { amount } from "./files.js";

const MOST_TEXT = 256 << 10;
const MOST_PICTURE = 8 << 20;
/** @type {Record<string, string>} */
const PICTURES = {
  avif: "image/avif", bmp: "image/bmp", gif: "image/gif", ico: "image/x-icon", jpeg: "image/jpeg", jpg: "image/jpeg",
  png: "image/png", svg: "image/svg+xml", webp: "image/webp",
};

let turn = 0;

/**
 * @param {HTMLElement} place
 * @param {string} id the session
 * @param {string} path
 * @param {number} size as it was listed
 * @param {[string, () => void][]} choices
 */
export async function preview(place, id, path, size, choices) {
  const mine = (turn += 1);
  const name = path.split("/").at(-1) ?? "";
  const buttons = choices.map(([label, act]) => element("button", { type: "button", className: "button", on: { click: act } }, label));
  const words = element("p", { className: "small", role: "status" }, "Reading …");
  place.replaceChildren(element("p", { className: "buttons" }, ...buttons), element("h3", {}, name), words);
  buttons[0]?.focus();
  const ending = name.split(".").at(-1)?.toLowerCase() ?? "";
  const type = Object.hasOwn(PICTURES, ending) ? PICTURES[ending] : undefined;
  try {
    const bytes = await read(fileUrl(id, path), size, type ? MOST_PICTURE : MOST_TEXT);
    const shown = type ? await picture(bytes, type, name) : text(bytes, name);
    if (mine !== turn) return;
    words.textContent = amount(bytes.length);
    place.append(shown);
  } catch (error) {
    if (mine !== turn) return;
    words.classList.remove("small");
    words.textContent = error instanceof Unfit ? error.message : sentence(error);
  }
}

class Unfit extends Error {}

/**
 * @param {string} url
 * @param {number} size
 * @param {number} most
 */
async function read(url, size, most) {
  const tooLarge = (/** @type {number} */ found) => {
    const how = Number.isFinite(found) ? amount(found) : "of unknown size";
    return new Unfit(`This file is not shown because it is too large: ${how}, and at most ${amount(most)} are shown.`);
  };
  if (size > most) throw tooLarge(size);
  const rest = new AbortController();
  const response = await reach(url, { cache: "no-store", signal: rest.signal });
  if (!response.ok) throw refusal(response.status, await response.text());
  const length = Number(response.headers.get("Content-Length") ?? Infinity);
  if (length > most) {
    rest.abort();
    throw tooLarge(length);
  }
  return new Uint8Array(await response.arrayBuffer());
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {string} name
 */
function text(bytes, name) {
  try {
    const found = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (found.includes("\0")) throw new Unfit();
    return element("pre", { tabIndex: 0, role: "region", "aria-label": name, textContent: found });
  } catch {
    throw new Unfit(`This file is not shown because it is binary, or text that is not UTF-8: ${amount(bytes.length)}.`);
  }
}

/**
 * As a `data:` address, which the page's policy allows for pictures. A program in one is not run.
 *
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {string} type
 * @param {string} name
 */
async function picture(bytes, type, name) {
  const reader = new FileReader();
  await new Promise((read, failed) => {
    reader.addEventListener("load", read);
    reader.addEventListener("error", failed);
    reader.readAsDataURL(new Blob([bytes], { type }));
  });
  const image = element("img", { alt: name, src: String(reader.result) });
  await image.decode().catch(() => {
    throw new Unfit(`This file is not shown because it is no picture, whatever its name: ${amount(bytes.length)}.`);
  });
  return image;
}
