"""Istio's own CNI node agent on this node: whether it runs. It listens for its plugin's log lines beside our socket."""

import socket
from pathlib import Path

LOGS = "log.sock"  # in CNI_AGENT_RUN_DIR, which its chart and ours mount; since Istio 1.12


def runs_beside(agent_socket: Path) -> bool:
    """Return whether Istio's own agent runs that shares the directory of this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.setblocking(False)
        try:
            connection.connect(str(agent_socket.with_name(LOGS)))
        except BlockingIOError:
            return True  # others wait for it already
        except OSError:
            return False
    return True
