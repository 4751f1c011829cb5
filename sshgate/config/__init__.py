"""The configuration: its model, and the loader that reads it from a YAML file."""
