"""The framing between client and agent, version 1: bytes in, bytes out, any language can speak it.

A frame is a head of six bytes (version, kind, length of the payload as a big-endian u32) and the payload.

REQUEST (client): the CNI_* variables as `NAME=value`, separated by NUL, then two NULs, then stdin as it came. The
    first byte carries the pod's netns as an open file descriptor (SCM_RIGHTS), so that no path is translated and
    nothing can change between check and use. One request a connection.
WORKING (agent): no payload. Sent while an answer takes its time, so that a client can tell busy from dead.
RESULT (agent): one byte, the exit status, then what the client writes to stdout.

It imports nothing, as the client's start is on every pod's path.
"""

VERSION = 1
REQUEST, WORKING, RESULT = 1, 2, 3
HEAD = 6
LARGEST_STDIN = 1 << 20
LARGEST_REQUEST = LARGEST_STDIN + (1 << 16)


class WireError(Exception):
    """The other side does not speak this protocol: the message says what was seen and what was expected."""


def frame(kind: int, payload: bytes) -> bytes:
    """Put the head before a payload."""
    return bytes((VERSION, kind)) + len(payload).to_bytes(4, "big") + payload


def head(received: bytes, largest: int) -> tuple[int, int]:
    """Read a head.

    Returns:
        Kind, and length of the payload in bytes.

    Raises:
        WireError: for another version, or a payload larger than `largest`.
    """
    version, kind, length = received[0], received[1], int.from_bytes(received[2:HEAD], "big")
    if version != VERSION:
        raise WireError(
            f"saw version {version} of the agent's protocol, expected {VERSION}: "
            "the plugin file and the agent differ by more than one release, install one of them again"
        )
    if length > largest:
        raise WireError(f"saw a message of {length} bytes, expected at most {largest}")
    return kind, length


def join(environment: dict[bytes, bytes], stdin: bytes) -> bytes:
    """Make the payload of a REQUEST."""
    return b"\0".join([k + b"=" + v for k, v in environment.items() if k.startswith(b"CNI_")]) + b"\0\0" + stdin


def split(payload: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """Take the payload of a REQUEST apart, into the CNI_* variables and stdin."""
    variables, _, stdin = payload.partition(b"\0\0")
    return dict(v.partition(b"=")[::2] for v in variables.split(b"\0")), stdin
