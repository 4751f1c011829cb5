"""Rules about the text of the tracked files that no linter knows. Prints what breaks them; exit status 1 then."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Clients of package registries find them by themselves; a name in a file would break mirrors.
REGISTRY = re.compile(
    r"pypi\.or[g]|pythonhoste[d]|registry\.npmj[s]|proxy\.golan[g]|deb\.debia[n]|crates\.i[o]|repo1\.mave[n]"
)
# A path of one machine.
MACHINE = re.compile(r"(?<![\w.$~}-])/(root|work|farm)/\w")
LONGEST_FILE = 500
SHORTEST_MODULE = 60
# Modules of the product that are shorter all the same, each with its reason. Others belong into their one user.
SHORT = {
    "sshgate/config/private_names.py": "for asyncssh and aiohttp",
    "sshgate/hold/replies.py": "pure; a part of the resident",
    "sshgate/lifecycle/admission.py": "pure; for the registry and for homes",
    "sshgate/providers/kubernetes/api/private.py": "a table, apart because it is checked before aiohttp is imported",
    "sshgate/sandbox/framing.py": "for relays and for residents",
    "sshgate/sandbox/temporary.py": "for both providers",
    "sshgate/server/loop.py": "for the gateway and the broker, which imports no asyncssh",
    "sshgate/ssh/_asyncssh/private.py": "a table, apart because it is checked before asyncssh is used",
    "sshgate/telemetry/rate_limit.py": "one rule, for every log line that strangers cause",
    "sshgate/telemetry/readiness.py": "for the composition root and the health port",
}
LONGEST_SENTENCE = 40
# Lists of changes, and texts that others wrote.
NO_PROSE = {"CHANGELOG.md"}
# Locks, texts and generated sums have no length to speak of.
UNBOUNDED = {".lock", ".md", ".sum", ".json", ".mod", ""}


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    mistakes = []
    for name in sorted(filter(None, listed.stdout.decode().split("\0"))):
        mistakes += list(broken_rules(Path(name)))
    print("\n".join(mistakes), file=sys.stderr)
    return 1 if mistakes else 0


def broken_rules(name: Path) -> list[str]:
    """One line for each rule that the file breaks."""
    path = ROOT / name
    if path.is_symlink() or not path.is_file():
        return []
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError:
        return []
    mistakes = []
    for number, line in enumerate(lines, 1):
        if REGISTRY.search(line):
            mistakes.append(f"{name}:{number}: names the host of a package registry")
        if MACHINE.search(line):
            mistakes.append(f"{name}:{number}: holds a path of one machine")
    if name.suffix not in UNBOUNDED and len(lines) > LONGEST_FILE:
        mistakes.append(f"{name}: {len(lines)} lines, {LONGEST_FILE} at most: split it")
    product = name.suffix == ".py" and name.parts[0] in ("sshgate", "webshim") and not name.stem.startswith("__")
    if product and len(lines) < SHORTEST_MODULE and str(name) not in SHORT:
        mistakes.append(f"{name}: {len(lines)} lines: merge it into its one user, or give its reason in tests/texts.py")
    if name.suffix == ".md" and name.name not in NO_PROSE:
        for number, sentence in sentences(lines):
            if (words := len(sentence.split())) > LONGEST_SENTENCE:
                beginning = " ".join(sentence.split()[:8])
                mistakes.append(
                    f"{name}:{number}: a sentence of {words} words, {LONGEST_SENTENCE} at most: {beginning} ..."
                )
    if name.parts[0] == "keys" and name.name not in (".gitignore", "README.md"):
        mistakes.append(f"{name}: no key is kept in git")
    return mistakes


def sentences(lines: list[str]) -> Iterator[tuple[int, str]]:
    """The sentences of a Markdown text, each with the number of the line that its paragraph begins at.

    Code, tables and headings have none. A span of code, and the text of a link, count as one word and as its words.
    """
    for number, paragraph in paragraphs(lines):
        plain = re.sub(r"`[^`]*`", "code", paragraph)
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", plain)
        for sentence in re.split(r"(?<=[.!?])\**\s+(?=\W*[A-Z]|code)", plain):
            yield number, sentence


def paragraphs(lines: list[str]) -> Iterator[tuple[int, str]]:
    """The paragraphs and list items of a Markdown text, joined to one line each, with the number of their first."""
    block: list[str] = []
    begins, code = 1, False
    for number, line in enumerate([*lines, ""], 1):
        text = line.strip()
        fence = text.startswith("```")
        apart = fence or code or not text or text.startswith(("|", "#", "<"))
        if block and (apart or re.match(r"(?:[-*]|\d+\.) ", text)):
            yield begins, " ".join(block)
            block = []
        code ^= fence
        if not apart:
            begins = begins if block else number
            block.append(text)


if __name__ == "__main__":
    sys.exit(main())
