"""The composition root: from settings to a running gateway to its drained end."""
