"""``sshgate cp``: trees of files into and out of a sandbox that is already running.

Reading order: ``places`` (what the words on the command line mean), ``records`` (what travels), ``outgoing``
(a tree becomes records), ``incoming`` (records become a tree, safely), ``copying`` (one copy from end to
end), ``command``. The far end of a copy is whatever the sandbox has: Python runs the same ``outgoing`` and
``incoming`` as here (``agent``), else ``tar`` (``tarball``, ``tarfar``), else plain ``sh`` (``shellfar``).
"""
