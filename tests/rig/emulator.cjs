// xterm.js without a page: one terminal, driven by lines of JSON on stdin, each answered by one line. Arguments: the
// package's directory, columns, rows.
"use strict";
const { Terminal } = require(process.argv[2]);
const terminal = new Terminal({
  cols: Number(process.argv[3]), rows: Number(process.argv[4]), scrollback: 10000, allowProposedApi: true,
});
let typed = "";
let title = "";
terminal.onData((data) => { typed += Buffer.from(data, "utf8").toString("latin1"); });
terminal.onBinary((data) => { typed += data; });
terminal.onTitleChange((text) => { title = text; });

// A line as pieces of text with the same looks; blanks without looks at its end are no part of it.
function pieces(line) {
  const found = [];
  for (let x = 0; x < terminal.cols; x++) {
    const cell = line.getCell(x);
    if (!cell.getWidth()) continue;
    const looks = [
      cell.getFgColorMode() && cell.getFgColorMode() + ":" + cell.getFgColor(),
      cell.getBgColorMode() && "on " + cell.getBgColorMode() + ":" + cell.getBgColor(),
      cell.isBold() && "bold", cell.isDim() && "dim", cell.isItalic() && "italic", cell.isUnderline() && "underline",
      cell.isInverse() && "inverse", cell.isInvisible() && "invisible", cell.isStrikethrough() && "struck",
    ].filter(Boolean).join(" ");
    const text = cell.getChars() || " ";
    const last = found[found.length - 1];
    if (last && last[1] === looks) last[0] += text;
    else found.push([text, looks]);
  }
  const last = found[found.length - 1];
  if (last && !last[1]) {
    last[0] = last[0].trimEnd();
    if (!last[0]) found.pop();
  }
  return found.map(([text, looks]) => (looks ? [text, looks] : text));
}

function screen() {
  const buffer = terminal.buffer.active;
  const lines = [];
  for (let y = 0; y < terminal.rows; y++) lines.push(pieces(buffer.getLine(buffer.baseY + y)));
  const history = [];
  const main = terminal.buffer.normal;
  for (let y = 0; y < main.baseY; y++) {
    const line = main.getLine(y);
    const text = line.translateToString(true);
    if (line.isWrapped && history.length) history[history.length - 1] += text;
    else history.push(text);
  }
  const { bracketedPasteMode, applicationCursorKeysMode, applicationKeypadMode, insertMode, mouseTrackingMode,
    originMode, reverseWraparoundMode, sendFocusMode, wraparoundMode } = terminal.modes;
  return {
    screen: buffer.type, lines, cursor: [buffer.cursorX, buffer.cursorY], history, title,
    hidden: terminal._core.coreService.isCursorHidden,
    modes: { bracketedPasteMode, applicationCursorKeysMode, applicationKeypadMode, insertMode, mouseTrackingMode,
      originMode, reverseWraparoundMode, sendFocusMode, wraparoundMode },
  };
}

let rest = "";
process.stdin.setEncoding("utf8");
process.stdin.on("data", async (chunk) => {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop();
  for (const line of lines) {
    const wish = JSON.parse(line);
    let answer = {};
    if (wish.write !== undefined) {
      await new Promise((done) => terminal.write(Buffer.from(wish.write, "base64"), done));
      answer = { typed: Buffer.from(typed, "latin1").toString("base64") };
      typed = "";
    } else if (wish.size) {
      terminal.resize(...wish.size);
    } else {
      answer = screen();
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
});
