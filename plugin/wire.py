"""The framing between client and agent: bytes in, bytes out, usable from any language.

A frame is a header of six bytes (version, kind, length of the payload as a big-endian u32) and the payload.

REQUEST (client): the CNI_* variables as `NAME=value`, separated by NUL, then two NULs, then stdin as it came. The
    first byte carries the pod's netns as an open file descriptor (SCM_RIGHTS), so that no path is translated and
    nothing can change between check and use. One request per connection.
WORKING (agent): no payload. Sent while an answer is pending, so that a client can distinguish busy from dead.
RESULT (agent): one byte with the exit status, then what the client writes to stdout.

The agent answers in the version of the request, which may be the one before its own; a client that meets an agent of the
version before waits for its own (F31).

It imports nothing, as every pod waits for the client's start.
"""

VERSION = 1
OLDEST = max(1, VERSION - 1)  # that an agent answers
REQUEST, WORKING, RESULT = 1, 2, 3
HEAD = 6
# Bytes: the conflist (1 MiB at most), and the pod's annotations: the API server admits 256 KiB, each byte six in Go's JSON.
LARGEST_STDIN = 4 << 20
LARGEST_REQUEST = LARGEST_STDIN + (1 << 16)


class WireError(Exception):
    """The peer does not speak this protocol: the message says what was seen and what was expected."""


class SkewError(WireError):
    """The peer speaks the version before or after."""


def frame(kind: int, payload: bytes, version: int = VERSION) -> bytes:
    """Prepend the header to a payload."""
    return bytes((version, kind)) + len(payload).to_bytes(4, "big") + payload


def head(received: bytes, largest: int, oldest: int = VERSION) -> tuple[int, int]:
    """Parse a header, of this version or an older one down to `oldest`.

    Returns:
        The kind, and the length of the payload in bytes.

    Raises:
        SkewError: for the version before or after.
        WireError: for any other version, or a payload larger than `largest`.
    """
    version, kind, length = received[0], received[1], int.from_bytes(received[2:HEAD], "big")
    if not oldest <= version <= VERSION:
        raise (SkewError if abs(version - VERSION) == 1 else WireError)(
            f"saw version {version} of the agent's protocol, expected {VERSION}: the plugin file and the agent are of "
            "different releases. An agent installs its own plugin file when it starts: restart it"
        )
    if length > largest:
        raise WireError(f"saw a message of {length} bytes, expected at most {largest}")
    return kind, length


def join(environment: dict[bytes, bytes], stdin: bytes) -> bytes:
    """Build the payload of a REQUEST."""
    return b"\0".join([k + b"=" + v for k, v in environment.items() if k.startswith(b"CNI_")]) + b"\0\0" + stdin


def split(payload: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """Split the payload of a REQUEST into the CNI_* variables and stdin."""
    variables, _, stdin = payload.partition(b"\0\0")
    return dict(v.partition(b"=")[::2] for v in variables.split(b"\0")), stdin
