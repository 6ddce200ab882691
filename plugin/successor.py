"""The plugin's successor: that of Istio's own agent, where a rollback has put it in this one's place (D9).

A call of this plugin that waits for an agent waits in vain then. The runtime would start another file by the same path by
now: the call becomes that, with the configuration that it was given, which Istio's plugin takes as its own.
"""

from __future__ import annotations

import posix

from plugin import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

KUBECONFIG = "istio-cni-kubeconfig"  # of Istio's plugin, in `cni_agent_run_dir`
LONGEST = 4096  # bytes of a path


def take_over(environment: Mapping[bytes, bytes], stdin: bytes) -> None:
    """Become the successor; return if there is none, or if anything is not as expected: the call goes on waiting.

    Two things make one: another file than this process's where it was started from, and a kubeconfig that was written after
    it. Istio's agent writes them in this order, and its plugin fails without the second; after an upgrade of this plugin
    there is none, and the next agent answers.

    Args:
        environment: the process's, and the successor's.
        stdin: the network configuration that this process was given, and the successor is.
    """
    try:
        path = _started_from()
        if _is_replaced(path) and _has_kubeconfig(path, stdin):
            _become(path, environment, stdin)
    except (OSError, ValueError, AttributeError, TypeError):
        return


def _started_from() -> bytes:
    fd = posix.open("/proc/self/cmdline", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, LONGEST).partition(b"\0")[0]
    finally:
        posix.close(fd)


def _is_replaced(path: bytes) -> bool:
    if not path.startswith(b"/"):
        return False
    there, own = posix.stat(path), posix.stat("/proc/self/exe")
    return (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino)


def _has_kubeconfig(path: bytes, stdin: bytes) -> bool:
    folder = jsontext.loads(stdin.decode()).get("cni_agent_run_dir")
    return folder.startswith("/") and posix.stat(f"{folder}/{KUBECONFIG}").st_mtime_ns >= posix.stat(path).st_mtime_ns


def _become(path: bytes, environment: Mapping[bytes, bytes], stdin: bytes) -> None:
    """Execute a file as the runtime would, but for SIGPIPE, which stays ignored: Go's programs handle it in any case."""
    fd = posix.memfd_create("stdin")
    try:
        left = stdin
        while left:
            left = left[posix.write(fd, left) :]
        posix.lseek(fd, 0, 0)
        posix.dup2(fd, 0)
    finally:
        posix.close(fd)
    posix.execve(path, [path], environment)
