/** What people who talk to an agent send to it: a line break that does not submit, and files, which become their paths. */

import { uploadTo } from "./files.js";
import { complain } from "./notices.js";

const SUBMIT = "\r";
const META_RETURN = "\x1b\r";
const SHIFT_RETURN = "\x1b[27;2;13~";
const MODIFY_OTHER_KEYS = 4;
/** @type {Record<string, string>} */
const ENDINGS = { "image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp", "application/pdf": "pdf" };

/**
 * What Shift+Enter sends. Agents take Alt+Enter for a line break; whether one is there is known by its wish for focus
 * reports, which no shell has. An editor that has them as well wants the key as it is (modifyOtherKeys).
 *
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @returns {() => string}
 */
export function lineBreak(terminal) {
  let asItIs = false;
  terminal.parser.registerCsiHandler({ prefix: ">", final: "m" }, ([resource, value]) => {
    if (resource === MODIFY_OTHER_KEYS) asItIs = Number(value ?? 0) > 0;
    return false;
  });
  return () => {
    if (!terminal.modes.sendFocusMode) return SUBMIT;
    return asItIs ? SHIFT_RETURN : META_RETURN;
  };
}

/**
 * Upload files, and type their paths for the program.
 *
 * @param {import("./session.js").Session} session
 * @param {File[]} files
 * @param {typeof typePasted} how
 */
export function typeFiles(session, files, how) {
  const { id, screen, box, panel } = session;
  const before = document.activeElement;
  const here = () => {
    const now = document.activeElement;
    const free = now === document.body || now === before || box.contains(now);
    return free && session.id === id && session.state === "connected" && panel.checkVisibility();
  };
  if (id !== null && screen && session.state === "connected") void how(id, files, screen.terminal, here);
  else complain("No sandbox runs here to upload to.");
}

/**
 * Files that were dropped on the terminal: into the working directory, and their names into the program.
 *
 * @param {string} id the session
 * @param {File[]} files
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @param {() => boolean} here whether the person is still at it
 */
export async function typeDropped(id, files, terminal, here) {
  for (const file of files) await uploadTo(id, file, file.name, () => here() && typePath(terminal, file.name));
}

/**
 * Files that were pasted, such as a picture of the screen: they have no place yet, and no name of their own.
 *
 * @param {string} id the session
 * @param {File[]} files
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @param {() => boolean} here whether the person is still at it
 */
export async function typePasted(id, files, terminal, here) {
  const begun = new Date();
  const moment = new Date(begun.getTime() - begun.getTimezoneOffset() * 60_000).toISOString().replaceAll(/[-:Z]/g, "").replaceAll(/[T.]/g, "-");
  for (const [index, file] of files.entries()) {
    const ending = ENDINGS[file.type] ?? /\.(\w{1,8})$/.exec(file.name)?.[1] ?? "bin";
    const path = `/tmp/paste-${moment}${index ? `-${index + 1}` : ""}.${ending}`;
    await uploadTo(id, file, path, () => here() && typePath(terminal, path));
  }
}

/**
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @param {string} path
 */
export function typePath(terminal, path) {
  terminal.paste(`${shellWord(path)} `);
  terminal.focus();
}

/** As a shell reads it, and agents as well. Names come from other machines: a control character in one is not typed. @param {string} path */
function shellWord(path) {
  const word = (path.startsWith("-") ? `./${path}` : path).replaceAll(/\p{Cc}/gu, "?");
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
