"""``sshgate cp``: copies trees of files into and out of a running sandbox.

Reading order: ``places`` (the arguments of the command line), ``records`` (the protocol), ``outgoing`` (a tree becomes
records), ``incoming`` (records become a tree, safely), ``copying`` (one copy from end to end), ``command``. The far end
uses what the sandbox has: Python runs the same ``outgoing`` and ``incoming`` as this side (``python_peer``, ``agent``),
else ``tar`` is used (``tar_peer``, ``tarball``), else plain ``sh`` (``sh_peer``).
"""
