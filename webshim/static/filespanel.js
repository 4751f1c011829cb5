/** The list of files at the side: the folder that the shown terminal is in, or another one of its sandbox. */

import { typePath } from "./agentinput.js";
import { LATE_MS, sentence } from "./api.js";
import { announce, byId, element, icon, iconButton } from "./dom.js";
import { makeFolder, remove, rename } from "./filechanges.js";
import { isFolder, read, readMore, sorted } from "./filelist.js";
import { amount, download, when } from "./files.js";
import { popUp } from "./menu.js";
import { complain, notify } from "./notices.js";
import { preview } from "./preview.js";
import { add, chosenParts, takeFolderDrops, Upload } from "./transfers.js";

/**
 * @typedef {import("./filelist.js").Entry} Entry
 * @typedef {import("./filelist.js").Listed} Listed
 * @typedef {import("./session.js").Session} Session
 */

// More rows than this no person reads, and no phone draws at once.
const MOST_ENTRIES = 3000;
// A command that has been typed is given this long, and a look costs the sandbox something.
const SETTLE_MS = 700;
const BETWEEN_MS = 2000;
// There it covers all else, as files.css has it.
const covers = matchMedia("(max-width: 760px)");

/** @param {() => Session | undefined} shown @returns {Promise<FilesPanel>} once its style is there */
export async function openable(shown) {
  const style = element("link", { rel: "stylesheet", href: new URL("files.css", import.meta.url).href });
  await new Promise((there, lost) => {
    const fail = () => (style.remove(), lost(new Error("files.css")));
    const late = setTimeout(fail, LATE_MS);
    style.addEventListener("load", () => (clearTimeout(late), there(null)));
    style.addEventListener("error", fail);
    document.head.append(style);
  });
  return new FilesPanel(shown);
}

export class FilesPanel {
  /** @param {() => Session | undefined} shown */
  constructor(shown) {
    this._shown = shown;
    this._open = false;
    /** @type {Session | undefined} */
    this._session = undefined;
    /** Where each terminal's list is; none: where its shell is. @type {WeakMap<Session, string>} */
    this._places = new WeakMap();
    /** @type {WeakSet<Session>} */
    this._followed = new WeakSet();
    /** @type {Listed | null} */
    this._listed = null;
    /** Of the last request: answers of earlier ones come too late. */
    this._turn = 0;
    this._timer = 0;
    this._looked = 0;
    /** The id of a session that has a sandbox. @type {string | null} */
    this._at = null;
    this._previewed = "";
    /** As they are shown. @type {Entry[]} */
    this._entries = [];
    this._changing = false;
    const tool = (/** @type {string} */ label, /** @type {string} */ picture, /** @type {() => unknown} */ act) =>
      iconButton(label, picture, () => void act());
    const choose = (/** @type {boolean} */ folder) => {
      const field = element("input", { type: "file", multiple: true, hidden: true, webkitdirectory: folder });
      field.addEventListener("change", () => {
        this._upload(() => chosenParts(field.files), this._listed?.path);
        field.value = "";
      });
      return field;
    };
    const [files, folder] = [choose(false), choose(true)];
    this._following = tool("Follow the terminal", "follow", () => this._go(null));
    this._crumbs = element("ol", {});
    this._words = element("p", { className: "words small", role: "status" });
    this._list = element("ul", { className: "entries", "aria-label": "In this folder" });
    this._more = element("button", { type: "button", className: "button", hidden: true, on: { click: () => void this._load(true) } });
    this._folder = element("div", { className: "folder" }, this._list, this._words, this._more);
    this._preview = element("section", { className: "preview", "aria-label": "Preview", hidden: true });
    this._transfers = element("ul", { className: "transfers", "aria-label": "Uploads" });
    this._panel = element(
      "section",
      { id: "files", "aria-labelledby": "files-title", hidden: true, tabIndex: -1 },
      element(
        "div",
        { className: "head" },
        element("h2", { id: "files-title" }, "Files"),
        this._following,
        tool("Read again", "again", () => this._load()),
        tool("New folder", "folder-new", () => this._change(makeFolder)),
        tool("Upload files into this folder", "upload", () => files.click()),
        tool("Upload a folder into this folder", "folder-up", () => folder.click()),
        tool("Download this folder as an archive", "download", () => (this._listed ? this._archive(this._listed.path) : complain("No folder is shown."))),
        tool("Close", "close", () => this._close()),
      ),
      element("nav", { "aria-label": "Folder" }, this._crumbs),
      this._folder,
      this._preview,
      this._transfers,
      files,
      folder,
    );
    this._panel.addEventListener("keydown", (event) => this._key(event));
    // A press beside what can have the focus leaves it with nothing.
    document.body.addEventListener("keydown", (event) => {
      if (event.target === document.body && event.key === "Escape" && this._modal) this._key(event);
    });
    takeFolderDrops(this._panel, (found, folder) => void this._upload(() => found, folder ?? this._listed?.path));
    covers.addEventListener("change", () => this._cover());
    byId("frame").append(this._panel);
  }

  /** Open or close it. What is open and has not the focus gets that first. */
  toggle() {
    const { activeElement: focused } = document;
    if (!this._open) this._begin();
    else if (this._panel.contains(focused) || focused === byId("files-button")) this._close();
    else this._focus();
  }

  _begin() {
    this._open = true;
    // What was read before it was closed may be another now.
    this._session = undefined;
    const read = this.look();
    this._focus();
    void read?.then(() => this._panel.contains(document.activeElement) && this._focus());
  }

  _close() {
    this._open = false;
    this.look();
    this._session?.screen?.focus();
  }

  /** What is shown has changed, perhaps. @returns {Promise<void> | undefined} it has, and was read */
  look() {
    const session = this._shown();
    this._panel.hidden = !this._open || !session;
    this._cover();
    byId("files-button").setAttribute("aria-expanded", String(this._open));
    if (!session || !this._open) return undefined;
    const at = session.state === "connected" ? session.id : null;
    if (session === this._session && at === this._at) return undefined;
    if (session !== this._session) this._back();
    this._session = session;
    this._at = at;
    this._show(null, "");
    if (at !== null) this._follow(session);
    return this._load();
  }

  get _modal() {
    return covers.matches && !this._panel.hidden;
  }

  /** What it covers is out of reach, also for keys and readers. */
  _cover() {
    const modal = this._modal;
    this._panel.role = modal ? "dialog" : "complementary";
    this._panel.ariaModal = modal ? "true" : null;
    for (const other of byId("frame").children) if (other instanceof HTMLElement && other !== this._panel) other.inert = modal;
  }

  /** Look again after what may have changed it: a command, or a shell that says where it is (OSC 7). @param {Session} session */
  _follow(session) {
    const terminal = session.screen?.terminal;
    if (!terminal || this._followed.has(session)) return;
    this._followed.add(session);
    const soon = () => session === this._session && !this._panel.hidden && this._loadSoon();
    terminal.onData((typed) => typed.includes("\r") && terminal.buffer.active.type === "normal" && soon());
    terminal.parser.registerOscHandler(7, () => (soon(), false));
  }

  _loadSoon() {
    this._timer ||= setTimeout(() => {
      this._timer = 0;
      if (!this._panel.hidden && !document.hidden) void this._load();
    }, Math.max(SETTLE_MS, this._looked + BETWEEN_MS - performance.now()));
  }

  /**
   * @param {string | null} path null: where the shell is, from now on
   * @param {string} [wanted] the name that gets the focus
   */
  async _go(path, wanted) {
    const session = this._session;
    if (!session) return;
    if (path === null) this._places.delete(session);
    else this._places.set(session, path);
    this._back();
    await this._load();
    this._focus(wanted);
  }

  /** @param {boolean} [further] what follows on what is shown */
  async _load(further = false) {
    const session = this._session;
    if (!session) return;
    const turn = (this._turn += 1);
    this._looked = performance.now();
    const place = this._places.get(session);
    this._following.setAttribute("aria-pressed", String(place === undefined));
    if (this._at === null) {
      this._show(null, "No sandbox runs here now.");
      return;
    }
    if (!this._listed) this._say("Reading …");
    const shown = this._listed;
    try {
      const listed = await (further && shown ? readMore(this._at, shown) : read(this._at, place ?? "", shown));
      if (turn !== this._turn) return;
      this._show(listed, "");
    } catch (error) {
      if (turn === this._turn) this._show(this._listed && { ...this._listed, path: place ?? this._listed.path, total: 0, entries: [] }, sentence(error));
    }
  }

  /**
   * @param {Listed | null} listed
   * @param {string} words
   */
  _show(listed, words) {
    const left = (listed?.total ?? 0) - (listed?.entries.length ?? 0);
    this._say(words || (listed?.total === 0 ? "Nothing is in this folder." : left > 0 ? `${listed?.entries.length} of ${listed?.total}` : ""));
    this._more.hidden = left <= 0 || (listed?.entries.length ?? 0) >= MOST_ENTRIES;
    this._more.textContent = `Show more of ${listed?.total}`;
    // What is as it was keeps its focus, and a press that has begun.
    if (JSON.stringify(listed) === JSON.stringify(this._listed)) return;
    const focused = this._list.contains(document.activeElement) ? document.activeElement?.closest("li")?.dataset["name"] : undefined;
    this._listed = listed;
    this._showCrumbs(listed?.path ?? "");
    this._entries = sorted(listed?.entries ?? []);
    this._list.replaceChildren(...this._entries.map((entry) => this._row(entry)));
    this._select(0);
    if (focused !== undefined) this._focus(focused);
  }

  /** @param {string} path */
  _showCrumbs(path) {
    const names = path.split("/").filter(Boolean);
    const crumb = (/** @type {string} */ name, /** @type {number} */ index) => {
      const below = names[index];
      const go = () => void this._go(`/${names.slice(0, index).join("/")}`, below);
      const here = index === names.length ? { "aria-current": "location" } : {};
      return element("li", {}, element("button", { type: "button", className: "crumb", ...here, on: { click: go } }, name));
    };
    this._crumbs.replaceChildren(...(path ? ["/", ...names].map(crumb) : []));
    this._crumbs.scrollLeft = this._crumbs.scrollWidth;
  }

  /** @param {Entry} entry */
  _row(entry) {
    const { name, text, kind, size, mode, mtime } = entry;
    const changed = new Date(mtime * 1000);
    const words = kind === "file" ? amount(size) : kind === "directory" ? "folder" : kind;
    const open = element(
      "button",
      {
        type: "button",
        className: "entry",
        // It keeps its place among the keys: a name that is no text is not the end of the list.
        "aria-disabled": String(!text),
        title: `${name}\nmode ${mode}, changed ${changed.toLocaleString()}`,
        on: { click: () => void this._enter(entry) },
      },
      icon(kind === "directory" ? "folder" : "file"),
      element("span", { className: "name" }, name),
      " ", // a word of its own for who reads it
      element("span", { className: kind === "directory" ? "visually-hidden" : "small" }, words),
      " ",
      element("span", { className: "small when" }, when(changed)),
    );
    const more = iconButton(`Actions for ${name}`, "more", () => {
      const { right, bottom } = more.getBoundingClientRect();
      this._menu(entry, { clientX: right, clientY: bottom });
    });
    more.setAttribute("aria-haspopup", "menu");
    const row = element("li", {}, open, text ? more : null);
    row.addEventListener("contextmenu", (event) => {
      // A finger that is lifted would close it.
      if (!text || (event instanceof PointerEvent && event.pointerType === "touch")) return;
      event.preventDefault();
      this._menu(entry, event);
    });
    row.dataset["name"] = name;
    if (kind === "directory" && text) row.dataset["folder"] = this._path(name);
    return row;
  }

  /**
   * @param {Entry} entry
   * @param {{clientX: number, clientY: number}} place
   */
  _menu(entry, place) {
    const [id, folder] = [this._at, this._path("")];
    const path = folder + entry.name;
    // The list goes where the shell goes, also below a menu.
    const here = (/** @type {() => unknown} */ act) => () =>
      id === this._at && folder === this._path("") ? void act() : complain("Another folder is shown by now.");
    const save = here(() => (entry.kind === "directory" ? this._archive(path) : this._download(path)));
    const use = [{ title: "Type its path", act: here(() => this._type(path)) }, { title: "Download", act: save, useless: entry.kind === "other" }];
    const change = [
      { title: "Rename", key: "F2", act: here(() => this._rename(entry)) },
      { title: "Delete", key: "Delete", act: here(() => this._delete(entry)) },
    ];
    popUp(this._panel, entry.name, [use, change], place);
  }

  /** @param {Entry} entry */
  _rename({ name }) {
    return this._change((id, folder) => rename(id, folder, name), name);
  }

  /** @param {Entry} entry */
  _delete(entry) {
    // It may have been read again meanwhile.
    const at = this._entries.findIndex(({ name }) => name === entry.name);
    const neighbour = (this._entries[at + 1] ?? this._entries[at - 1])?.name ?? "";
    return this._change(async (id, folder) => ((await remove(id, folder, entry)) ? neighbour : null), entry.name);
  }

  /**
   * Change what is in the folder, and read it again.
   *
   * @param {(id: string, folder: string) => Promise<string | null>} act returns the name that gets the focus; null: it was not done
   * @param {string} [name] that gets it then
   */
  async _change(act, name = "") {
    const [id, path] = [this._at, this._listed?.path];
    if (this._changing) return complain("A change is under way; wait for it.");
    if (id === null || path === undefined) return complain("No folder is shown.");
    this._changing = true;
    this._back();
    const changed = await act(id, this._path("")).finally(() => (this._changing = false));
    if (id !== this._at || path !== this._listed?.path) return;
    if (changed !== null) await this._load();
    // Where the row is another now, the question could not give the focus back. Who went elsewhere meanwhile stays there.
    const { activeElement: focused } = document;
    const stayed = changed !== null && focused?.closest("#files :is(.head, .entries)");
    if (stayed || focused === document.body) this._focus(changed ?? name);
  }

  /** @param {string} name in the folder that is shown */
  _path(name) {
    return `${(this._listed?.path ?? "").replace(/\/$/, "")}/${name}`;
  }

  /** @param {Entry} entry */
  async _enter({ name, text, kind, size }) {
    const [id, path] = [this._at, this._path(name)];
    if (id === null || !text) return;
    const folder = kind === "directory" || (kind === "link" && (await isFolder(id, path)));
    // Another terminal's list is shown by now, or another folder.
    if (id !== this._at || path !== this._path(name)) return;
    if (folder) {
      await this._go(path);
      return;
    }
    this._previewed = name;
    this._folder.hidden = true;
    this._preview.hidden = false;
    await preview(this._preview, id, path, kind === "file" ? size : 0, [
      ["Back", () => (this._back(), this._focus(name))],
      ["Download", () => void download(id, path)],
      ["Type its path", () => this._type(path)],
    ]);
  }

  /** From a preview to the list. */
  _back() {
    this._preview.hidden = true;
    this._preview.replaceChildren();
    this._folder.hidden = false;
  }

  /** @param {string} path */
  _download(path) {
    if (this._at !== null) void download(this._at, path);
  }

  /** @param {string} path of a folder */
  _archive(path) {
    if (this._at !== null) void download(this._at, path, `${path.split("/").at(-1) || "files"}.tar`);
  }

  /** @param {string} path */
  _type(path) {
    const terminal = this._session?.screen?.terminal;
    if (!terminal) return;
    if (covers.matches) this._close();
    typePath(terminal, path);
  }

  /**
   * @param {() => import("./transfers.js").Part[] | Promise<import("./transfers.js").Part[]>} chosen
   * @param {string} [folder]
   */
  async _upload(chosen, folder) {
    const id = this._at;
    try {
      const wanted = await chosen();
      if (id === null || folder === undefined) complain("No folder is shown to upload to.");
      else if (wanted.length) add(this._transfers, new Upload(id, folder, wanted, this._listener()));
    } catch (error) {
      complain(sentence(error));
    }
  }

  /** What becomes of an upload whose list nobody looks at stands in a notice. */
  _listener() {
    return {
      changed: (/** @type {string} */ folder) => folder === this._listed?.path && void this._load(),
      asks: () => this._panel.hidden && notify("An upload waits for an answer.", { label: "Show", act: () => this._open || this._begin() }),
      ended: (/** @type {string} */ words, /** @type {boolean} */ bad) => {
        if (this._panel.hidden) notify(words, null, bad ? "bad" : "plain");
        else announce(words);
      },
    };
  }

  /** @param {string} words */
  _say(words) {
    if (this._words.textContent !== words) this._words.textContent = words;
  }

  /** One row is in the tab order. @param {number} index */
  _select(index) {
    for (const [at, row] of [...this._list.children].entries()) {
      for (const button of row.querySelectorAll("button")) button.tabIndex = at === index ? 0 : -1;
    }
  }

  /** @param {string} [name] else the first row */
  _focus(name) {
    const rows = /** @type {HTMLElement[]} */ ([...this._list.children]);
    const index = Math.max(0, rows.findIndex(({ dataset }) => dataset["name"] === name));
    this._select(index);
    const button = rows[index]?.querySelector("button:not(:disabled)") ?? this._panel.querySelector(".head button:last-of-type");
    if (this._folder.hidden) this._preview.querySelector("button")?.focus();
    else /** @type {HTMLElement | null} */ (button)?.focus();
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    const { key, ctrlKey, altKey, metaKey, shiftKey } = event;
    if (ctrlKey || altKey || metaKey || shiftKey || (event.target instanceof Element && event.target.closest("#context"))) return;
    if (key === "F2" || key === "Delete") {
      const entry = this._entries[this._now];
      if (!entry?.text) return;
      void (key === "F2" ? this._rename(entry) : this._delete(entry));
    } else if (key === "Escape") {
      if (this._preview.hidden) this._close();
      else this._back(), this._focus(this._previewed);
    } else if (key === "Backspace" && this._listed && this._listed.path !== "/") {
      const names = this._listed.path.split("/").filter(Boolean);
      void this._go(`/${names.slice(0, -1).join("/")}`, names.at(-1));
    } else if (!this._move(key)) return;
    event.preventDefault();
  }

  /** The row that has the focus. */
  get _now() {
    return [...this._list.children].findIndex((row) => row.contains(document.activeElement));
  }

  /** @param {string} key */
  _move(key) {
    const rows = [...this._list.children];
    const now = this._now;
    /** @type {Record<string, number>} */
    const targets = { ArrowUp: now - 1, ArrowDown: now + 1, Home: 0, End: rows.length - 1 };
    const next = rows[targets[key]];
    if (now < 0 || !next) return false;
    this._select(rows.indexOf(next));
    next.querySelector("button")?.focus();
    return true;
  }
}
