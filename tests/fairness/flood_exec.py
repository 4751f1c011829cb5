"""An API server whose exec sockets flood: ``python -m tests.fairness.flood_exec KIND MIB`` prints its port.

Every socket gets so many bytes of frames of this kind, and then the status of a program that has ended well.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import sys

from sshgate.providers.kubernetes.api.websocket import V5

ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, PING, FIRST, MORE, LAST = 0x82, 0x89, 0x02, 0x00, 0x80


def frame(head: int, payload: bytes) -> bytes:
    return bytes([head, len(payload)]) + payload


KINDS = {
    "bytes of output": frame(BINARY, b"\x01x"),
    "both outputs": frame(BINARY, b"\x01x") + frame(BINARY, b"\x02x"),
    "empty output": frame(BINARY, b"\x01"),
    "empty messages": frame(BINARY, b""),
    "unknown channels": frame(BINARY, b"\x09x"),
    "pings": frame(PING, b""),
    "answers of an sftp server": frame(BINARY, b"\x01" + ((5).to_bytes(4, "big") + bytes(5)) * 13),
    "fragments": frame(FIRST, b"\x01") + frame(MORE, b"") * 20 + frame(LAST, b"x"),
}
END = frame(BINARY, b'\x03{"status":"Success"}') + frame(0x88, b"\x03\xe8")


async def main(kind: str, mib: str) -> None:
    """Serve until stdin ends."""
    one = KINDS[kind]
    blob = one * (int(float(mib) * (1 << 20)) // len(one))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        key = next(value for name, value in lines.items() if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + ACCEPT).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: " + V5.encode() + b"\r\n\r\n"
        )
        sink = asyncio.create_task(reader.read())
        writer.write(blob + END)
        try:
            await writer.drain()
            await sink
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    os._exit(0)


if __name__ == "__main__":
    os.nice(10)
    asyncio.run(main(*sys.argv[1:]))
