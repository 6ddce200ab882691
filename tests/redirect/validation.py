"""What istio-validation does in a pod's netns before anything else may start: it asks itself through the rules.

It listens on 15006 of loopback alone, and is not transparent; it calls, from loopback, a port of the pass-through's address,
which nobody serves; and it must find on what it accepts the destination that it has asked for. It prints, for each family,
that destination, where the connection arrived and from where; or the error.
"""

from __future__ import annotations

import json
import socket
from contextlib import closing

from tests.redirect.remote import V4, V6, asked_for

PORT, ASKED = 15006, 15002
PATIENCE = 3.0  # seconds
ADDRESSES = {V4: ("127.0.0.1", "127.0.0.6"), V6: ("::1", "::6")}


def validate(family: socket.AddressFamily) -> dict[str, object]:
    """Call itself once."""
    loopback, pass_through = ADDRESSES[family]
    with closing(socket.socket(family)) as server, closing(socket.socket(family)) as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((loopback, PORT))
        server.listen()
        for each in (server, client):
            each.settimeout(PATIENCE)
        client.bind((loopback, 0))
        try:
            client.connect((pass_through, ASKED))
            accepted, peer = server.accept()
        except OSError as error:
            return {"error": str(error)}
        with closing(accepted):
            return {"asked": asked_for(accepted), "at": accepted.getsockname()[:2], "from": peer[0]}


if __name__ == "__main__":
    print(json.dumps([validate(family) for family in ADDRESSES]))
