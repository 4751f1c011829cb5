"""The composition root: builds a gateway from its configuration, runs it, reloads it and drains it."""
