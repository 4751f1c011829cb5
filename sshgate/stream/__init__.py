"""Bytes between two ends: no third party, no I/O."""
