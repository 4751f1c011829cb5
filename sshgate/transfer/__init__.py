"""``sshgate cp``: copies trees of files into and out of a running sandbox.

Reading order: ``locations`` (the arguments of the command line), ``records`` (the protocol), ``sender`` (a tree becomes
records), ``receiver`` (records become a tree, safely), ``copying`` (one copy from end to end), ``command``. The far end
uses what the sandbox has: Python runs the same ``sender`` and ``receiver`` as this side (``python_peer``, ``agent``),
else ``tar`` is used (``tar_peer``, ``tarball``).
"""
