"""Sandboxes on this machine, by bubblewrap.

``provider`` makes them, ``sandbox`` is one of them, ``process`` a program in it; ``bubblewrap`` and ``system``
say what a sandbox sees of this machine, and ``spawner`` runs apart and makes what they say.
"""
