/** Files into and out of a session's sandbox: dropped or chosen, one after the other, of any size. Their list is in filespanel.js. */

import { fileUrl, reach, Refused, refusal, sentence } from "./api.js";
import { byId, element, iconButton } from "./dom.js";
import { complain, notify } from "./notices.js";

// A file up to this size is saved from what the first request brought; a larger one goes from the network to the disk.
const SMALL_BYTES = 8 << 20;
const EXISTS = 412;

/**
 * @param {string} id the session
 * @param {Iterable<File>} files
 */
export async function upload(id, files) {
  for (const file of files) await uploadTo(id, file, file.name, () => {});
}

/**
 * @param {string} id
 * @param {File} file
 * @param {string} path in the sandbox
 * @param {() => void} uploaded it is there
 * @param {boolean} [replace] a file of this name that is there
 */
export async function uploadTo(id, file, path, uploaded, replace = false) {
  const row = new Transfer(`Uploading ${path}`);
  try {
    await send(fileUrl(id, path), file, row, replace);
    notify(`Uploaded ${path} (${amount(file.size)}).`);
    uploaded();
  } catch (error) {
    if (error instanceof Refused && error.status === EXISTS) {
      notify(`${path} is there already.`, { label: "Replace", act: () => void uploadTo(id, file, path, uploaded, true) });
    } else if (!row.cancelled) complain(`${path} was not uploaded. ${sentence(error)}`);
  } finally {
    row.remove();
  }
}

/**
 * @param {string} id
 * @param {string} path
 * @param {string} [packed] a directory: the name of the archive that it comes in
 */
export async function download(id, path, packed) {
  const url = fileUrl(id, path) + (packed ? "&as=tar" : "");
  const rest = new AbortController();
  try {
    // Asked for by the page itself first: a refusal has a sentence to show.
    const response = await reach(url, { cache: "no-store", signal: rest.signal });
    if (!response.ok) throw refusal(response.status, await response.text());
    const name = packed ?? path.split("/").at(-1) ?? "file";
    const size = Number(response.headers.get("Content-Length") ?? Infinity);
    notify(`Downloading ${name}${Number.isFinite(size) ? ` (${amount(size)})` : ""}.`);
    if (size <= SMALL_BYTES) {
      saveBlob(await response.blob(), name);
    } else {
      rest.abort();
      save(url, name);
    }
  } catch (error) {
    complain(`${path} was not downloaded. ${sentence(error)}`);
  }
}

/**
 * @param {string} url
 * @param {File} file
 * @param {{onCancel(cancel: () => void): void, moved(done: number, whole: number): void}} row
 * @param {boolean} replace
 * @returns {Promise<void>}
 */
export function send(url, file, row, replace) {
  // fetch reports no progress of what it sends.
  const request = new XMLHttpRequest();
  row.onCancel(() => request.abort());
  return new Promise((resolve, reject) => {
    request.upload.addEventListener("progress", ({ loaded }) => row.moved(loaded, file.size));
    request.addEventListener("error", () => reject(new Refused(0, "The connection was lost.")));
    request.addEventListener("abort", () => reject(new Refused(0, "It was cancelled.")));
    request.addEventListener("load", () => {
      if (request.status < 300) resolve();
      else reject(refusal(request.status, request.responseText));
    });
    request.open("PUT", url);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (!replace) request.setRequestHeader("If-None-Match", "*");
    request.send(file);
  });
}

/**
 * @param {Blob} blob
 * @param {string} name
 */
export function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  save(url, name);
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * @param {string} url
 * @param {string} name
 */
function save(url, name) {
  element("a", { href: url, download: name }).click();
}

/** Those under way: leaving the page would cut them. @type {Set<object>} */
export const underWay = new Set();
window.addEventListener("beforeunload", (event) => underWay.size && event.preventDefault());

/** A notice with a bar, while something is under way. */
class Transfer {
  /** @param {string} text */
  constructor(text) {
    underWay.add(this);
    this.cancelled = false;
    this._bar = element("progress", { max: 1, "aria-label": text });
    /** @type {() => void} */
    this._cancel = () => {};
    const cancel = () => ((this.cancelled = true), this._cancel());
    this._row = element("div", { className: "notice" }, element("span", { textContent: text }), this._bar, iconButton("Cancel", "close", cancel));
    byId("notices").append(this._row);
  }

  /** @param {() => void} cancel */
  onCancel(cancel) {
    this._cancel = cancel;
  }

  /**
   * @param {number} done
   * @param {number} whole
   */
  moved(done, whole) {
    if (whole > 0) this._bar.value = done / whole;
  }

  remove() {
    underWay.delete(this);
    this._row.remove();
  }
}

/**
 * Files dropped anywhere on the page go to the session that is shown; a browser would leave the page and show them.
 *
 * @param {HTMLElement} panels
 * @param {(files: File[], typed: boolean) => void} dropped `typed`: on the terminal, whose program is to learn of them
 */
export function takeDrops(panels, dropped) {
  const hint = element("div", { className: "drop", hidden: true }, element("span", {}, "Drop to upload and to type the name (with Alt: to upload only)"));
  panels.append(hint);
  const carriesFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files") ?? false;
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    // The list of files takes them itself.
    hint.hidden = event.defaultPrevented;
    event.preventDefault();
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) hint.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event) || event.defaultPrevented) return;
    event.preventDefault();
    hint.hidden = true;
    const items = [...(event.dataTransfer?.items ?? [])];
    if (items.some((item) => item.webkitGetAsEntry()?.isDirectory)) {
      complain("A folder is uploaded by dropping it on the list of files: Ctrl+Shift+X.");
    } else {
      const typed = event.target instanceof Element && panels.contains(event.target) && !event.altKey;
      dropped([...(event.dataTransfer?.files ?? [])], typed);
    }
  });
}

/** @param {number} bytes */
export function amount(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let unit = 0;
  let value = bytes;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "short" });

/** A time of today, or a day. @param {Date} moment */
export function when(moment) {
  const today = moment.toDateString() === new Date().toDateString();
  // A sandbox may claim one that is none.
  return Number.isNaN(moment.getTime()) ? "" : (today ? clock : calendar).format(moment);
}

/** The list of files at the side, once it was wanted. @type {import("./filespanel.js").FilesPanel | undefined} */
let panel;
/** There is one, however often it is wanted before it is there. @type {Promise<import("./filespanel.js").FilesPanel> | undefined} */
let opening;

/** @param {() => import("./session.js").Session | undefined} shown */
export async function toggleFiles(shown) {
  opening ??= import("./filespanel.js").then(({ openable }) => openable(shown));
  try {
    panel = await opening;
  } catch {
    opening = undefined;
    const again = { label: "Try again", act: () => void toggleFiles(shown) };
    notify("The list of files did not arrive.", again, "bad");
    return;
  }
  panel.toggle();
}

/** Another session is shown, or its state is another. */
export function filesChanged() {
  panel?.look();
}
