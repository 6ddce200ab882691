"""The CNI plugin as the container runtime runs it: a thin client of the node's agent (D1, D2).

On every pod's path it imports three built-in modules and works on bytes, as the frozen executable starts CPython's core
alone: no codecs, no standard streams, no standard library. What a rare path needs is imported there.
"""

import _socket
import posix
import sys

from plugin import wire

AGENT_SOCKET = b"/var/run/istio-cni/agent.sock"
GIVE_UP = 20.0  # seconds for the whole call: CRI-O ends it after 60 (F28)
SILENCE = 1.0  # seconds without a word, after which the agent counts as away
RETRY = 0.1  # seconds between two tries to reach it

FIRST_KEY = b'{"agentSocket":"'  # libcni sorts the keys and writes no blanks: the agent's entry begins so


class Begun:
    """What the executable's accelerator has done of a call before it handed over (plugin/frozen/accelerator.c, D13).

    `stdin` is as far as it was read; `agent` a connection on which the whole request was sent at `since`, on
    time.monotonic's clock, and `received` what came back; -1 and 0 where there is none.
    """

    def __init__(self, stdin: bytes = b"", received: bytes = b"", agent: int = -1, since: float = 0.0) -> None:
        self.stdin, self.received, self.agent, self.since = stdin, received, agent, since


def run(stdin: bytes = b"", received: bytes = b"", agent: int = -1, since: float = 0.0) -> None:
    """Answer the runtime's call and end the process, without CPython's finalisation (it would cost 3 ms).

    The arguments are those of `Begun`.
    """
    posix._exit(main(posix.environ, Begun(stdin, received, agent, since)))


def main(environment: dict[bytes, bytes], begun: Begun) -> int:
    """Answer one call: the result or the error goes to stdout, a line for the journal to stderr (F24).

    Args:
        environment: the process'.
        begun: what has been done of it.

    Returns:
        The exit status: 0, or 1 with a CNI error on stdout.
    """
    command = environment.get(b"CNI_COMMAND")
    if command in (b"DEL", b"GC"):
        return 0  # the rules go with the netns: these succeed without an agent (F6, F26)
    try:
        if command == b"VERSION":
            return _finish(0, _version(_read_stdin(begun)))
        if command not in (b"ADD", b"CHECK", b"STATUS"):
            return _fail(_unknown(command))
        stdin = _read_stdin(begun)
        netns = None if command == b"STATUS" else _open_netns(environment)
        return _finish(*_ask(environment, stdin, netns, begun))
    except Exception as error:  # noqa: BLE001 - whatever it is, the runtime gets a CNI error
        return _fail(error)


def _version(stdin: bytes) -> bytes:
    from plugin import version

    asked = version.asked(stdin)
    if not asked:
        from plugin import cni

        asked = cni.version_asked(stdin)
    return version.info(asked)


def _read_stdin(begun: Begun) -> bytes:
    parts, size = [begun.stdin], len(begun.stdin)
    while chunk := posix.read(0, 65536):
        parts.append(chunk)
        size += len(chunk)
        if size > wire.LARGEST_STDIN:
            from plugin.cni import CniError, Code

            raise CniError(
                Code.DECODING_FAILURE,
                f"stdin: saw more than {wire.LARGEST_STDIN} bytes, expected a network configuration of a few kilobytes",
            )
    return b"".join(parts)


def _open_netns(environment: dict[bytes, bytes]) -> int | None:
    """Open the pod's netns, to be handed on (D3); a FIFO must not block us. A missing variable is the agent's to name."""
    path = environment.get(b"CNI_NETNS")
    if not path:
        return None
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError as error:
        from plugin.cni import CniError, Code

        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_NETNS: saw {path.decode('utf-8', 'replace')!r}: {error.strerror}; expected the pod's network namespace",
        ) from error


def _ask(environment: dict[bytes, bytes], stdin: bytes, netns: int | None, begun: Begun) -> tuple[int, bytes]:
    """Have the agent answer; while it is away, look once whether the pod can do without it (D9)."""
    from time import monotonic, sleep

    path = _agent_socket(stdin)
    request = wire.frame(wire.REQUEST, wire.join(environment, stdin))
    since = begun.since or monotonic()
    deadline = since + GIVE_UP
    looked = False
    while True:
        try:
            silent_until = deadline if looked else since + SILENCE
            if begun.agent < 0:
                return _result(_asked(path, request, netns, silent_until), b"", silent_until, deadline)
            agent, begun.agent = _socket.socket(fileno=begun.agent), -1
            return _result(agent, begun.received, silent_until, deadline)
        except (
            OSError,
            wire.SkewError,
        ) as error:  # during an upgrade the agent of this release comes within seconds (F31)
            seen = error
        if not looked:
            from plugin import fallback

            looked = True
            answer = fallback.answer(environment, stdin)
            if answer is not None:
                return 0, answer
        if monotonic() + RETRY >= deadline:
            from plugin import fallback

            raise fallback.agent_unreachable(path, seen, GIVE_UP)
        from plugin import successor

        successor.take_over(environment, stdin)
        sleep(RETRY)


def _agent_socket(stdin: bytes) -> bytes:
    """Find where the agent listens, without a JSON parser where libcni wrote the configuration.

    Only the first key is trusted to be found so: further in, a pod's annotation could pose as one.
    """
    if stdin.startswith(FIRST_KEY):
        path, quote, _ = stdin[len(FIRST_KEY) :].partition(b'"')
        if quote and b"\\" not in path:
            return path
    from plugin import fallback

    return fallback.agent_socket(stdin) or AGENT_SOCKET


def _asked(path: bytes, request: bytes, netns: int | None, silent_until: float) -> _socket.socket:
    """Connect to the agent and send it the request.

    Args:
        path: the agent's socket.
        request: the frame to send.
        netns: sent along with the first byte.
        silent_until: when to give up on an agent that has not said a word; on time.monotonic's clock.

    Raises:
        OSError: if the agent is not there, goes away, or does not take the request in time.
    """
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        agent.settimeout(_left(silent_until))
        agent.connect(path)
        descriptors = (
            () if netns is None else ((_socket.SOL_SOCKET, _socket.SCM_RIGHTS, netns.to_bytes(4, sys.byteorder)),)
        )
        sent = agent.sendmsg((request,), descriptors)
        if sent < len(request):
            agent.settimeout(_left(silent_until))
            agent.sendall(request[sent:])
    except OSError:
        agent.close()
        raise
    return agent


def _result(agent: _socket.socket, received: bytes, give_up: float, deadline: float) -> tuple[int, bytes]:
    """Wait for the result of a request, and close the connection.

    Args:
        agent: a connection on which the request was sent.
        received: what has come back already.
        give_up: when to give up on an agent that has not said a word; on time.monotonic's clock.
        deadline: when to give up on it whatever it says (F28).

    Raises:
        OSError: if the agent goes away or does not answer in time.
        SkewError: if it is an agent of the release before or after that does not speak this version.
        WireError: if what listens there is no agent, or one of another release.
    """
    try:
        while True:
            while len(received) >= wire.HEAD:
                kind, length = wire.head(received, wire.LARGEST_REQUEST)
                if kind != wire.WORKING and (kind != wire.RESULT or not length):
                    raise wire.WireError(f"saw {length} bytes of kind {kind}, expected a result ({wire.RESULT})")
                give_up, end = deadline, wire.HEAD + length
                if len(received) < end:
                    break
                if kind == wire.RESULT:
                    return received[wire.HEAD], received[wire.HEAD + 1 : end]
                received = received[end:]
            agent.settimeout(_left(give_up))
            chunk = agent.recv(65536)
            if not chunk:
                raise ConnectionResetError("the agent went away before it had answered")
            received += chunk
    finally:
        agent.close()


def _left(until: float) -> float:
    """Say how many seconds are left, and end the waiting if none are."""
    from time import monotonic

    left = until - monotonic()
    if left <= 0:
        raise TimeoutError("it did not finish in time")
    return left


def _unknown(command: bytes | None) -> Exception:
    from plugin.cni import CniError, Code

    seen = "nothing" if command is None else repr(command.decode("utf-8", "replace")[:40])
    return CniError(
        Code.INVALID_ENVIRONMENT,
        f"CNI_COMMAND: saw {seen}, expected ADD, DEL, CHECK, STATUS, GC or VERSION. "
        "istio-cni is a CNI plugin and is run by the container runtime",
    )


def _fail(error: Exception) -> int:
    from plugin import cni

    if not isinstance(error, cni.CniError):
        error = cni.CniError(cni.Code.IO_FAILURE, f"{type(error).__name__}: {error}")
    return _finish(1, error.encode())


def _finish(status: int, answer: bytes) -> int:
    if status:
        _write(2, answer + b"\n")
    if answer:
        _write(1, answer)
    return status


def _write(descriptor: int, data: bytes) -> None:
    try:
        while data:
            data = data[posix.write(descriptor, data) :]
    except OSError:
        if descriptor == 1:
            raise  # without its result the runtime must not take the pod for set up; a lost log line fails nobody
