"""The private names of aiohttp that ``websocket`` uses."""

# The version that it was written for and is tested with.
WORKS = "3.14.5"

# By module and class: what is read, set, called or overridden there, private or not documented.
USED = {
    ("_websocket.helpers", ""): "websocket_mask",
    ("client_proto", "ResponseHandler"): "_parser set_parser",
    ("client_reqrep", "ClientResponse"): "_connection",
    ("connector", "TCPConnector"): "_acquired _start_tls_connection _wrap_create_connection",
}
