"""Sandboxes, whatever makes them: the contracts (``interfaces``), how a program is started in one (``enter``,
``launcher``), execs beside the users' programs (``side_execs``), and files without an sftp-server (``shell_files``)."""
