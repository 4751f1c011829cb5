"""The gateway's own subsystems (``ssh -s``), which need no sandbox."""
