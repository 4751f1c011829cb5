/** Programs that want to be noticed: what they send, the bell, and how it is shown to somebody who looks elsewhere. */

import { notify } from "./notices.js";
import { settings } from "./settings.js";
import { read, write } from "./storage.js";

// A program that calls without end is noticed this often.
const PAUSE_MS = 5000;
// A command that took longer is worth a word when it ends.
const LONG_MS = 10_000;
const LONGEST_TEXT = 200;
// A program that rings without end is heard this often.
const QUIET_MS = 300;
const ASKED_KEY = "sshgate.notifications";
// States of OSC 9;4 that have a share: in progress, failed, paused.
const SHARES = ["1", "2", "4"];

/**
 * @typedef {object} Listener
 * @property {(text: string) => void} called the program wants to be noticed
 * @property {(percent: number | null) => void} progressed
 */

/**
 * Notifications by OSC 9 (iTerm2), 777 (urxvt) and 99 (kitty); progress by OSC 9;4; ends of long commands by OSC 133.
 *
 * @param {import("./vendor/xterm.js").Terminal} terminal
 * @param {() => boolean} live false while old output is replayed
 * @param {Listener} listener
 */
export function watch(terminal, live, listener) {
  let began = 0;
  const call = (/** @type {string} */ text) => {
    const shown = text.replaceAll(/\p{C}/gu, "").slice(0, LONGEST_TEXT).trim();
    if (shown && live()) listener.called(shown);
    return true;
  };
  terminal.parser.registerOscHandler(9, (content) => {
    const [kind, state, share] = content.split(";");
    if (kind !== "4") return /^\d+$/.test(kind) ? true : call(content);
    const percent = Math.min(100, Math.max(0, Number(share) || 0));
    listener.progressed(SHARES.includes(state) ? percent : null);
    return true;
  });
  terminal.parser.registerOscHandler(777, (content) => {
    const [kind, ...texts] = content.split(";");
    return kind === "notify" && call(texts.filter(Boolean).join(": "));
  });
  terminal.parser.registerOscHandler(99, (content) => call(content.slice(content.indexOf(";") + 1)));
  terminal.parser.registerOscHandler(133, (content) => {
    const [kind, status] = content.split(";");
    const took = performance.now() - began;
    if (kind === "C") began = performance.now();
    if (kind === "D" && began && took > LONG_MS) call(`A command has ended after ${Math.round(took / 1000)} s${status && status !== "0" ? ` with status ${status}` : ""}.`);
    if (kind === "D") began = 0;
    return false; // marks.js has it too
  });
}

/** Whether the person looks at this page now. */
export function watched() {
  return !document.hidden && document.hasFocus();
}

/** Who was shown last, so that none is shown without end. @type {Map<string, number>} */
const shownAt = new Map();

/**
 * A word on the desktop, where the person has allowed it and looks elsewhere. The first time they are asked whether to.
 *
 * @param {string} id the session
 * @param {string} title
 * @param {string} text
 * @param {() => void} open the person wants to see it
 */
export function showOnDesktop(id, title, text, open) {
  if (!("Notification" in globalThis) || !isSecureContext) return;
  const now = performance.now();
  if (now - (shownAt.get(id) ?? -PAUSE_MS) < PAUSE_MS) return;
  if (Notification.permission === "default") offer();
  if (Notification.permission !== "granted" || watched()) return;
  shownAt.set(id, now);
  try {
    // Other tabs may show the same: the tag makes it one.
    const shown = new Notification(title, { body: text, tag: `sshgate.${id}` });
    shown.addEventListener("click", () => (window.focus(), open(), shown.close()));
  } catch {
    // Some phones have it only for service workers.
  }
}

function offer() {
  if (read("localStorage", ASKED_KEY)) return;
  if (!watched()) {
    window.addEventListener("focus", offer, { once: true });
    return;
  }
  write("localStorage", ASKED_KEY, "asked");
  const act = () => void Notification.requestPermission();
  notify("A program calls for attention. Show this on the desktop while you look elsewhere?", { label: "Allow", act });
}

/** The window's icon has a dot while something waits. @param {boolean} waiting */
export function markIcon(waiting) {
  const icon = document.querySelector("link[rel=icon]");
  const plain = icon?.getAttribute("data-plain") ?? icon?.getAttribute("href") ?? "";
  const wanted = waiting ? plain.replace("favicon.svg", "favicon-waiting.svg") : plain;
  if (!icon || icon.getAttribute("href") === wanted) return;
  icon.setAttribute("data-plain", plain);
  icon.setAttribute("href", wanted);
}

// --- the bell, as the person wants it ---

let last = 0;
/** @type {AudioContext | null} */
let audio = null;

/** @param {HTMLElement} panel */
export function ring(panel) {
  const now = performance.now();
  if (settings().bell === "off" || now - last < QUIET_MS) return;
  last = now;
  if (settings().bell === "sound" && navigator.userActivation.hasBeenActive) beep();
  else flash(panel);
}

/** @param {HTMLElement} panel */
function flash(panel) {
  panel.classList.add("rings");
  setTimeout(() => panel.classList.remove("rings"), QUIET_MS / 2);
}

function beep() {
  audio ??= new AudioContext();
  const tone = new OscillatorNode(audio, { frequency: 660 });
  const volume = new GainNode(audio, { gain: 0.08 });
  volume.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + 0.15);
  tone.connect(volume).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + 0.15);
}
