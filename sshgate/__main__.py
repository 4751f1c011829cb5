"""``python -m sshgate``."""

from __future__ import annotations

from sshgate.cli.main import main

if __name__ == "__main__":
    main(prog_name="sshgate")
