/** The typeface, and the terminal's colours in the two themes; the page's own are in page.css. */

export const TYPEFACE = '"JetBrains Mono"';
const SYSTEM = 'ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';
const FONTS = `${TYPEFACE}, ${SYSTEM}`;
const FONT_MS = 3000;

/** A terminal measures the typeface when it is made: this waits for it, not for ever. @returns {Promise<unknown>} */
export function typeface() {
  const late = new Promise((go) => setTimeout(go, FONT_MS));
  const loads = [400, 700].map((weight) => document.fonts.load(`${weight} 14px ${TYPEFACE}`).catch(() => {}));
  return Promise.race([Promise.all(loads), late]);
}

/** @param {Pick<import("./settings.js").Settings, "font" | "fontName">} settings */
export function fontFamily({ font, fontName }) {
  if (font === "system") return SYSTEM;
  return font === "own" && fontName ? `"${fontName}", ${FONTS}` : FONTS;
}

const PARTS = [
  "background", "foreground", "cursor", "selectionBackground", "selectionInactiveBackground",
  "black", "red", "green", "yellow", "blue", "magenta", "cyan", "white",
  "brightBlack", "brightRed", "brightGreen", "brightYellow", "brightBlue", "brightMagenta", "brightCyan", "brightWhite",
];
/** In the order of PARTS. @type {Record<string, {words: string, dark: string, light: string}>} */
const COLOURS = {
  sshgate: {
    words: "sshgate",
    dark: "11141a d8dee9 7cc4ff 33507a 2a3344 2b313d ff7b85 8fd694 f0c674 79b8ff d7a6ff 6fd8d8 c9d1de 7d8799 ff9aa2 aeea9f ffdd94 a5cfff e6c5ff 9aecec f4f7fb",
    light: "fcfcfa 22262e 1667c0 b9d7f7 dfe6ee 22262e b3202c 1f7a33 8a5a00 1667c0 8433b5 0b7285 5c6470 6a7280 c92a37 2b8a3e 996300 1c7ed6 9c36d1 0c8599 3a404a",
  },
  solarized: {
    words: "Solarized",
    dark: "002b36 93a1a1 93a1a1 274642 0d3a46 073642 dc322f 859900 b58900 268bd2 d33682 2aa198 eee8d5 586e75 cb4b16 859900 b58900 268bd2 6c71c4 2aa198 fdf6e3",
    light: "fdf6e3 586e75 586e75 e0d9c0 eee8d5 073642 dc322f 859900 b58900 268bd2 d33682 2aa198 93a1a1 657b83 cb4b16 859900 b58900 268bd2 6c71c4 2aa198 002b36",
  },
  gruvbox: {
    words: "Gruvbox",
    dark: "282828 ebdbb2 ebdbb2 504945 3c3836 3c3836 cc241d 98971a d79921 458588 b16286 689d6a a89984 928374 fb4934 b8bb26 fabd2f 83a598 d3869b 8ec07c ebdbb2",
    light: "fbf1c7 3c3836 3c3836 ebdbb2 f2e5bc 3c3836 cc241d 98971a d79921 458588 b16286 689d6a 7c6f64 928374 9d0006 79740e b57614 076678 8f3f71 427b58 282828",
  },
  one: {
    words: "One",
    dark: "282c34 abb2bf 528bff 3e4451 333842 3f4451 e06c75 98c379 e5c07b 61afef c678dd 56b6c2 d7dae0 7f848e f44747 98c379 e5c07b 61afef c678dd 56b6c2 ffffff",
    light: "fafafa 383a42 526fff d4d8e0 e5e5e6 383a42 e45649 50a14f c18401 4078f2 a626a4 0184bc a0a1a7 696c77 ca1243 50a14f c18401 4078f2 a626a4 0184bc 383a42",
  },
  contrast: {
    words: "High contrast",
    dark: "000000 ffffff ffff00 0060c0 004080 767676 ff6b6b 5fff5f ffff5f 7aa7ff ff87ff 5fffff ffffff a8a8a8 ff8c8c 87ff87 ffff87 9fc0ff ffafff 87ffff ffffff",
    light: "ffffff 000000 0000c0 a8d0ff d0e4ff 000000 b00000 006000 6b4b00 0000c0 8000a0 005f6b 404040 505050 c00000 007000 7a5800 0000e0 9000b0 006f7b 000000",
  },
};

/** Names and words of the palettes. */
export const PALETTES = Object.entries(COLOURS).map(([name, { words }]) => [name, words]);

/**
 * @param {string} name
 * @param {"light" | "dark"} theme
 * @returns {import("./vendor/xterm.js").ITheme}
 */
export function paletteColours(name, theme) {
  const colours = COLOURS[name][theme].split(" ").map((colour, index) => [PARTS[index], `#${colour}`]);
  const { background, foreground, ...others } = Object.fromEntries(colours);
  // The scrollbar's slider: `40`, `70` and `a0` say how much of what lies below is covered.
  const slider = theme === "dark" ? "#98a3b5" : "#596273";
  return {
    background,
    foreground,
    cursorAccent: background,
    scrollbarSliderBackground: `${slider}40`,
    scrollbarSliderHoverBackground: `${slider}70`,
    scrollbarSliderActiveBackground: `${slider}a0`,
    ...others,
  };
}
