/** The pictures of buttons, 16 by 16, as lines: they arrive with the page, so that no button is ever without its own. */

/** @param {number} x @param {number} y @param {number} r */
const circle = (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;

/** @type {Record<string, string>} */
export const ICONS = {
  brand: "M3 3.5L7.5 8 3 12.5",
  under: "M9 12.5h4.5",
  plus: "M8 3v10M3 8h10",
  close: "M4 4l8 8M12 4l-8 8",
  search: `${circle(7, 7, 4.2)}M10.2 10.2L13.5 13.5`,
  up: "M4 10l4-4 4 4",
  down: "M4 6l4 4 4-4",
  right: "M2.5 3.5h11v9h-11zM8 3.5v9",
  below: "M2.5 3.5h11v9h-11zM2.5 8h11",
  zoom: "M9.5 3H13v3.5M6.5 13H3V9.5M13 3L9.5 6.5M3 13l3.5-3.5",
  upload: "M8 10.5V3M5 5.8L8 3l3 2.8M3 10.5V13h10v-2.5",
  download: "M8 3v7.5M5 7.7l3 2.8 3-2.8M3 10.5V13h10v-2.5",
  settings: `M2.5 4.5h5M11 4.5h2.5M2.5 11.5H5M8.5 11.5h5${circle(9.2, 4.5, 1.7)}${circle(6.8, 11.5, 1.7)}`,
  list: "M3 4.5h10M3 8h10M3 11.5h10",
  more: "M3.5 8h.01M8 8h.01M12.5 8h.01",
  folder: "M2 4.5V12.5h12V5.5H8L6.5 3.5H2z",
  file: "M4 2.5h5l3 3v8H4zM9 2.5v3h3",
  "folder-up": "M2 4.5V12.5h12V5.5H8L6.5 3.5H2zM8 11V7.5M6.3 9L8 7.3 9.7 9",
  "folder-new": "M2 4.5V12.5h12V5.5H8L6.5 3.5H2zM8 7.2v3.6M6.2 9h3.6",
  again: "M13 8a5 5 0 1 1-1.6-3.7M13 2.5V5h-2.5",
  follow: `${circle(8, 8, 4.5)}M8 1.5v3M8 11.5v3M1.5 8h3M11.5 8h3`,
};
