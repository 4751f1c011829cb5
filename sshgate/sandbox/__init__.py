"""Sandboxes: the contract (``provider``), how a program is entered (``launch``), and the two providers."""
