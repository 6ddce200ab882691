"""A sidecar under TPROXY, in a machine's netns: it calls the application with the client's own address.

As Envoy's original_src filter does it: a transparent socket with SO_MARK 1337, bound to the client's address.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from tests.redirect.remote import V4, V6, asked_for, bound, transparent

MARK = 1337


async def main(port: int) -> None:
    """Hand on what comes until stdin ends."""
    for family in (V4, V6):
        await asyncio.start_server(_hand_on, sock=bound(family, socket.SOCK_STREAM, port, is_transparent=True))
    print("listening", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    accepted: socket.socket = writer.get_extra_info("socket")
    onward = socket.socket(accepted.family, socket.SOCK_STREAM)
    onward.setblocking(False)
    transparent(onward)
    onward.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    onward.bind((accepted.getpeername()[0], 0))
    await asyncio.get_running_loop().sock_connect(onward, asked_for(accepted))
    from_application, to_application = await asyncio.open_connection(sock=onward)
    await asyncio.gather(_copy(reader, to_application), _copy(from_application, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(4096):
        writer.write(chunk)
    writer.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
