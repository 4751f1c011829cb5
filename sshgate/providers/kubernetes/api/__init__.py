"""HTTP to the API server."""
