/** Uploads into a folder of the sandbox: a row for all that was chosen or dropped at once, with its questions and failures. */

import { fileUrl, Refused, sentence } from "./api.js";
import { announce, element, iconButton } from "./dom.js";
import { amount, send, underWay } from "./files.js";

const EXISTS = 412;
// More than this is packed into one file only by intent.
const MOST_FILES = 2000;
const MOST_ROWS = 20;
const NAMED_FAILURES = 3;

/**
 * @typedef {object} Part
 * @property {File} file
 * @property {string} name its path below the folder
 */

/**
 * What a person has dropped. To be called within the event: later the browser has forgotten it.
 *
 * @param {DataTransfer} dropped
 * @returns {Promise<Part[]>} Throws `Refused` where there is too much
 */
async function parts(dropped) {
  /** @type {Part[]} */
  const found = [];
  /** @type {[FileSystemEntry, string][]} */
  const waiting = [];
  for (const item of [...dropped.items]) {
    const entry = item.webkitGetAsEntry();
    const file = item.getAsFile();
    if (entry?.isDirectory) waiting.push([entry, entry.name]);
    else if (file) found.push({ file, name: file.name });
  }
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const [entry, name] = next;
    if (entry.isFile) found.push({ name, file: await new Promise((...given) => /** @type {FileSystemFileEntry} */ (entry).file(...given)) });
    else for (const one of await children(/** @type {FileSystemDirectoryEntry} */ (entry))) waiting.push([one, `${name}/${one.name}`]);
    if (found.length + waiting.length > MOST_FILES) throw tooMany();
  }
  return found;
}

/** @param {FileSystemDirectoryEntry} directory @returns {Promise<FileSystemEntry[]>} */
async function children(directory) {
  const reader = directory.createReader();
  /** @type {FileSystemEntry[]} */
  const found = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((...given) => reader.readEntries(...given));
    if (some.length === 0) return found;
    found.push(...some);
    if (found.length > MOST_FILES) throw tooMany();
  }
}

/** What a person has chosen. @param {FileList | null} chosen @returns {Part[]} */
export function chosenParts(chosen) {
  const files = [...(chosen ?? [])];
  if (files.length > MOST_FILES) throw tooMany();
  return files.map((file) => ({ file, name: file.webkitRelativePath || file.name }));
}

function tooMany() {
  return new Refused(0, `These are more than ${MOST_FILES} files; pack them into one first.`);
}

/** One row of the list of transfers. */
export class Upload {
  /**
   * @param {string} id the session
   * @param {string} folder an absolute path
   * @param {Part[]} wanted
   * @param {{changed: (folder: string) => void, asks: () => void, ended: (words: string, bad: boolean) => void}} listener
   */
  constructor(id, folder, wanted, listener) {
    this._id = id;
    this._folder = folder;
    this._wanted = wanted;
    this._listener = listener;
    this._words = element("span", { className: "words" });
    this._bar = element("progress", { max: 1, "aria-label": "Uploaded" });
    this._buttons = element("span", { className: "buttons" });
    this.row = element("li", {}, this._words, this._bar, this._buttons);
    /** @type {() => void} */
    this._abort = () => {};
    void this._run();
  }

  async _run() {
    const wanted = this._wanted;
    const whole = wanted.reduce((sum, { file }) => sum + file.size, 0);
    /** @type {{part: Part, error: unknown}[]} */
    const failed = [];
    let before = 0;
    let sent = 0;
    this._cancelled = this._replacesAll = false;
    underWay.add(this);
    for (const [index, part] of wanted.entries()) {
      const begun = performance.now();
      const moved = (/** @type {number} */ done) => {
        const speed = done / Math.max(0.1, (performance.now() - begun) / 1000);
        this._bar.value = whole ? (before + done) / whole : 1;
        const place = wanted.length > 1 ? ` ${index + 1} of ${wanted.length}:` : "";
        const rate = done && done < part.file.size ? `, ${amount(speed)}/s` : "";
        this._words.textContent = `Uploading${place} ${part.name}, ${amount(before + done)} of ${amount(whole)}${rate}`;
      };
      this._offer([["Cancel", () => this._cancel()]]);
      moved(0);
      try {
        if (await this._send(part, moved)) sent += 1;
      } catch (error) {
        if (!this._cancelled) failed.push({ part, error });
      }
      if (this._cancelled) break;
      before += part.file.size;
    }
    underWay.delete(this);
    if (sent) this._listener.changed(this._folder);
    this._ended(sent, failed);
  }

  /**
   * @param {Part} part
   * @param {(done: number) => void} moved
   * @returns {Promise<boolean>} false where the person leaves what is there as it is
   */
  async _send({ file, name }, moved) {
    const path = `${this._folder.replace(/\/$/, "")}/${name}`;
    const url = fileUrl(this._id, path) + (name.includes("/") ? "&parents=1" : "");
    const row = { onCancel: (/** @type {() => void} */ abort) => (this._abort = abort), moved };
    try {
      await send(url, file, row, this._replacesAll ?? false);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== EXISTS) throw error;
      if (!(await this._mayReplace(name))) return false;
      await send(url, file, row, true);
    }
    return true;
  }

  /** @param {string} name @returns {Promise<boolean>} */
  _mayReplace(name) {
    return new Promise((resolve) => {
      this._words.textContent = `${name} is there already.`;
      announce(this._words.textContent);
      const all = () => ((this._replacesAll = true), resolve(true));
      this._offer([
        ["Replace", () => resolve(true)],
        ...(this._wanted.length > 1 ? /** @type {[string, () => void][]} */ ([["Replace all", all]]) : []),
        ["Skip", () => resolve(false)],
        ["Cancel", () => (this._cancel(), resolve(false))],
      ]);
      this._listener.asks();
    });
  }

  _cancel() {
    this._cancelled = true;
    this._abort();
  }

  /**
   * @param {number} sent
   * @param {{part: Part, error: unknown}[]} failed
   */
  _ended(sent, failed) {
    const files = (/** @type {number} */ count) => (count === 1 ? "1 file" : `${count} files`);
    const [{ file, name }] = this._wanted;
    const done = this._wanted.length === 1 ? `Uploaded ${name} (${amount(file.size)}).` : `Uploaded ${files(sent)}.`;
    const named = failed.slice(0, NAMED_FAILURES).map(({ part, error }) => ` ${part.name} was not uploaded. ${sentence(error)}`);
    const rest = failed.length > NAMED_FAILURES ? ` Nor were ${files(failed.length - NAMED_FAILURES)} more.` : "";
    const cancelled = this._cancelled ? "Cancelled. " : "";
    const nothing = cancelled || failed.length ? "" : "Nothing was uploaded.";
    const words = `${cancelled}${sent ? done : nothing}${named.join("")}${rest}`.trim();
    this._words.textContent = words;
    this._bar.hidden = true;
    this.row.classList.toggle("bad", failed.length > 0);
    const again = () => {
      this._wanted = failed.map(({ part }) => part);
      this._bar.hidden = false;
      this.row.classList.remove("bad");
      void this._run();
    };
    this._offer(failed.length ? [["Try again", again]] : []);
    this._buttons.append(iconButton("Dismiss", "close", () => this.row.remove()));
    this._listener.ended(words, failed.length > 0);
  }

  /** @param {[string, () => void][]} choices */
  _offer(choices) {
    const make = (/** @type {[string, () => void]} */ [label, act]) =>
      element("button", { type: "button", className: "button", on: { click: act } }, label);
    this._buttons.replaceChildren(...choices.map(make));
  }
}

/** A row for them at the end of the list; the oldest of those that have ended goes. @param {HTMLElement} list @param {Upload} upload */
export function add(list, upload) {
  list.append(upload.row);
  if (list.children.length > MOST_ROWS) [...list.children].find((row) => !row.querySelector("progress:not([hidden])"))?.remove();
}

/**
 * What is dropped onto a row of a folder goes into that; elsewhere into the one that is shown.
 *
 * @param {HTMLElement} panel
 * @param {(found: Promise<Part[]>, folder: string | undefined) => void} dropped
 */
export function takeFolderDrops(panel, dropped) {
  const target = (/** @type {DragEvent} */ event) =>
    /** @type {HTMLElement | null} */ (event.target instanceof Element ? event.target.closest("[data-folder]") : null);
  const mark = (/** @type {HTMLElement | null} */ over) => {
    for (const one of [panel, ...panel.querySelectorAll(".over")]) one.classList.remove("over");
    over?.classList.add("over");
  };
  panel.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    mark(target(event) ?? panel);
  });
  panel.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!(relatedTarget instanceof Node && panel.contains(relatedTarget))) mark(null);
  });
  panel.addEventListener("drop", (event) => {
    const { dataTransfer } = event;
    if (!dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    mark(null);
    dropped(parts(dataTransfer), target(event)?.dataset["folder"]);
  });
}
