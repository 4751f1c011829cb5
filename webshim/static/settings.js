/** What a person has chosen for this browser: kept in localStorage, told to whoever listens. */

/**
 * @typedef {object} Settings
 * @property {number} fontSize in CSS pixels
 * @property {"system" | "light" | "dark"} theme
 * @property {"flash" | "sound" | "off"} bell
 * @property {"none" | "left" | "right" | "both"} option which Option key of a Mac is Meta; the others type letters
 * @property {boolean} pasteWarning whether a paste that would run, or is long, is asked about
 * @property {boolean} screenReader whether what is printed is read out
 */

const KEY = "sshgate.settings";
const FONT_SIZES = { least: 8, most: 32 };

/** @type {Settings} */
const DEFAULTS = { fontSize: 14, theme: "system", bell: "flash", option: "none", pasteWarning: true, screenReader: false };
const CHOICES = {
  theme: ["system", "light", "dark"],
  bell: ["flash", "sound", "off"],
  option: ["none", "left", "right", "both"],
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
  try {
    localStorage.setItem(KEY, JSON.stringify(current));
  } catch {
    // Storage is off or full: the choice holds for this page.
  }
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

/** Keeps the page in the chosen theme, in other tabs of it too. */
export function applyTheme() {
  const apply = () => {
    document.documentElement.dataset["theme"] = shownTheme();
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
  try {
    return valid({ ...DEFAULTS, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") });
  } catch {
    return DEFAULTS;
  }
}

/**
 * What was kept may be from another version, or by another hand.
 *
 * @param {Settings} read
 * @returns {Settings}
 */
function valid({ fontSize, theme, bell, option, pasteWarning, screenReader }) {
  const size = Number.isFinite(fontSize) ? Math.round(fontSize) : DEFAULTS.fontSize;
  return {
    fontSize: Math.min(Math.max(size, FONT_SIZES.least), FONT_SIZES.most),
    theme: CHOICES.theme.includes(theme) ? theme : DEFAULTS.theme,
    bell: CHOICES.bell.includes(bell) ? bell : DEFAULTS.bell,
    option: CHOICES.option.includes(option) ? option : DEFAULTS.option,
    pasteWarning: pasteWarning !== false,
    screenReader: screenReader === true,
  };
}
