"""One session from request to outcome."""
