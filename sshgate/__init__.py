"""sshgate: `ssh -p 2222 user@node` opens a fresh, locked-down sandbox.

Reading order: ``streams`` (the two ends of the line), ``bridge`` (the line), ``launcher`` (how a program
starts), ``gateway`` (one session from request to outcome), ``ssh`` (the front door), ``sandbox`` (the two
providers), ``access`` (who may come in), ``core`` and ``app`` (wiring).
"""

__version__ = "0.1.0"
