"""The command line: ``sshgate serve``, ``try``, ``check-config`` and the operator's commands."""
