"""One session, from the client's request to the outcome of its program."""
