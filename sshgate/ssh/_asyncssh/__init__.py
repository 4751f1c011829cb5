"""Subclasses and helpers that use private names of asyncssh, which are written against one version of it."""
