/** The typeface, and the terminal's colours in the two themes; the page's own are in page.css. */

export const TYPEFACE = '"JetBrains Mono"';
export const FONTS = `${TYPEFACE}, ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace`;
const FONT_MS = 3000;

/** A terminal measures the typeface when it is made: this waits for it, not for ever. @returns {Promise<unknown>} */
export function typeface() {
  const late = new Promise((go) => setTimeout(go, FONT_MS));
  const loads = [400, 700].map((weight) => document.fonts.load(`${weight} 14px ${TYPEFACE}`).catch(() => {}));
  return Promise.race([Promise.all(loads), late]);
}

/** @type {Record<"light" | "dark", import("./vendor/xterm.js").ITheme>} */
export const THEMES = {
  dark: {
    background: "#11141a",
    foreground: "#d8dee9",
    cursor: "#7cc4ff",
    cursorAccent: "#11141a",
    selectionBackground: "#33507a",
    selectionInactiveBackground: "#2a3344",
    scrollbarSliderBackground: "#98a3b540",
    scrollbarSliderHoverBackground: "#98a3b570",
    scrollbarSliderActiveBackground: "#98a3b5a0",
    black: "#2b313d",
    red: "#ff7b85",
    green: "#8fd694",
    yellow: "#f0c674",
    blue: "#79b8ff",
    magenta: "#d7a6ff",
    cyan: "#6fd8d8",
    white: "#c9d1de",
    brightBlack: "#7d8799",
    brightRed: "#ff9aa2",
    brightGreen: "#aeea9f",
    brightYellow: "#ffdd94",
    brightBlue: "#a5cfff",
    brightMagenta: "#e6c5ff",
    brightCyan: "#9aecec",
    brightWhite: "#f4f7fb",
  },
  light: {
    background: "#fcfcfa",
    foreground: "#22262e",
    cursor: "#1667c0",
    cursorAccent: "#fcfcfa",
    selectionBackground: "#b9d7f7",
    selectionInactiveBackground: "#dfe6ee",
    scrollbarSliderBackground: "#59627340",
    scrollbarSliderHoverBackground: "#59627370",
    scrollbarSliderActiveBackground: "#596273a0",
    black: "#22262e",
    red: "#b3202c",
    green: "#1f7a33",
    yellow: "#8a5a00",
    blue: "#1667c0",
    magenta: "#8433b5",
    cyan: "#0b7285",
    white: "#5c6470",
    brightBlack: "#6a7280",
    brightRed: "#c92a37",
    brightGreen: "#2b8a3e",
    brightYellow: "#996300",
    brightBlue: "#1c7ed6",
    brightMagenta: "#9c36d1",
    brightCyan: "#0c8599",
    brightWhite: "#3a404a",
  },
};
