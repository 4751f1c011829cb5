"""HTTP, watches and websockets to the API server."""
