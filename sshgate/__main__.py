"""``python -m sshgate``."""

from sshgate.cli import main

if __name__ == "__main__":
    main()
