/** What a person has chosen for this browser: kept in localStorage, reported to each listener. */

import { readValue, write } from "./storage.js";
import { PALETTES, paletteColours } from "./themes.js";

/**
 * @typedef {object} Settings
 * @property {"system" | "light" | "dark"} theme
 * @property {string} palette the terminal's colours
 * @property {"bundled" | "system" | "own"} font
 * @property {string} fontName
 * @property {number} fontSize in CSS pixels
 * @property {"close" | "medium" | "wide"} lineHeight
 * @property {"block" | "bar" | "underline"} cursor
 * @property {boolean} cursorBlink
 * @property {string} scrollback in lines
 * @property {boolean} copyOnSelect
 * @property {"menu" | "paste" | "browser"} rightClick
 * @property {boolean} pasteWarning whether a paste that would run, or is long, is asked about
 * @property {"none" | "left" | "right" | "both"} option which Option key of a Mac is Meta; the others type letters
 * @property {"flash" | "sound" | "off"} bell
 * @property {boolean} graphemes whether what is drawn as one sign takes the cells of one
 * @property {boolean} screenReader whether what is printed is read out
 *
 * @typedef {object} Field
 * @property {string} title for the person
 * @property {string | number | boolean} is before anybody has chosen
 * @property {Record<string, string>} [of] the values that it may have, and their words
 * @property {[number, number]} [range] of whole numbers
 */

const KEY = "sshgate.settings";
const LONGEST_NAME = 60;

/** In the order of the dialog. @type {Record<keyof Settings, Field>} */
export const FIELDS = {
  theme: { title: "Theme", is: "system", of: { system: "System's", light: "Light", dark: "Dark" } },
  palette: { title: "Terminal's colours", is: "sshgate", of: Object.fromEntries(PALETTES) },
  font: { title: "Typeface", is: "bundled", of: { bundled: "JetBrains Mono", system: "System's", own: "Another" } },
  fontName: { title: "Its name", is: "" },
  fontSize: { title: "Font size", is: 14, range: [8, 32] },
  lineHeight: { title: "Line height", is: "close", of: { close: "Close", medium: "Medium", wide: "Wide" } },
  cursor: { title: "Cursor", is: "block", of: { block: "Block", bar: "Bar", underline: "Underline" } },
  cursorBlink: { title: "Cursor blinks", is: true },
  scrollback: { title: "Lines that are kept", is: "10000", of: { 1000: "1000", 10000: "10 000", 30000: "30 000" } },
  copyOnSelect: { title: "Copy what is selected", is: false },
  rightClick: { title: "Right button", is: "menu", of: { menu: "Menu", paste: "Pastes", browser: "Browser's" } },
  pasteWarning: { title: "Ask before pasting lines that run", is: true },
  option: { title: "Option key is Meta", is: "none", of: { none: "No", left: "Left", right: "Right", both: "Both" } },
  bell: { title: "Bell", is: "flash", of: { flash: "Flash", sound: "Sound", off: "Off" } },
  graphemes: { title: "Emoji of several characters are one", is: false },
  screenReader: { title: "Screen reader mode", is: false },
};

const changes = new EventTarget();
const prefersLight = matchMedia("(prefers-color-scheme: light)");

/** @type {Settings} */
let current = load();

export function settings() {
  return current;
}

/** @param {Partial<Settings>} wanted */
export function change(wanted) {
  current = valid({ ...current, ...wanted });
  write("localStorage", KEY, JSON.stringify(current));
  changes.dispatchEvent(new Event("change"));
}

/**
 * @param {() => void} listener
 * @returns {() => void} stops the telling
 */
export function onChange(listener) {
  changes.addEventListener("change", listener);
  return () => changes.removeEventListener("change", listener);
}

/** @returns {"light" | "dark"} */
export function shownTheme() {
  if (current.theme !== "system") return current.theme;
  return prefersLight.matches ? "light" : "dark";
}

/** The terminal's. @returns {import("./vendor/xterm.js").ITheme} */
export function colours() {
  return paletteColours(current.palette, shownTheme());
}

/** Keeps the page in the chosen theme, in other tabs of it too. */
export function applyTheme() {
  const apply = () => {
    document.documentElement.dataset["theme"] = shownTheme();
    document.documentElement.style.setProperty("--terminal", colours().background ?? "");
  };
  apply();
  onChange(apply);
  prefersLight.addEventListener("change", () => changes.dispatchEvent(new Event("change")));
  window.addEventListener("storage", ({ key }) => {
    if (key !== KEY) return;
    current = load();
    changes.dispatchEvent(new Event("change"));
  });
}

/** @returns {Settings} */
function load() {
  return valid(readValue("localStorage", KEY) ?? {});
}

/** What was kept may be from another version, or by another hand. @param {Record<string, unknown>} read @returns {Settings} */
function valid(read) {
  const fields = Object.entries(FIELDS).map(([name, field]) => [name, one(field, read[name])]);
  return Object.fromEntries(fields);
}

/** @param {Field} field @param {unknown} value */
function one({ is, of, range }, value) {
  if (range) return typeof value === "number" && Number.isFinite(value) ? Math.min(Math.max(Math.round(value), range[0]), range[1]) : is;
  if (typeof value !== typeof is || (of && !Object.hasOwn(of, String(value)))) return is;
  // A name of a font becomes a part of a style.
  return typeof value === "string" ? value.replaceAll(/[^\p{L}\p{N} ._-]/gu, "").slice(0, LONGEST_NAME) : value;
}
