"""The web front end: the gateway's sessions in xterm.js, over one WebSocket each."""
