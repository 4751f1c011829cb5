/** The bell, as the person wants it; a program that rings without end is heard now and then. */

import { settings } from "./settings.js";

const QUIET_MS = 300;

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
