"""The browser's front door: the gateway's sessions in xterm.js, over one WebSocket each."""
