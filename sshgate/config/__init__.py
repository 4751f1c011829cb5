"""The settings: their model, and reading them from a file."""
