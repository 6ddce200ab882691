"""The plugin's successor: that of Istio's own agent, where a rollback has put it in this one's place (D9).

A call of this plugin that waits for an agent waits in vain then. The runtime would start another file by the same path by
now, with another entry of the same network: the call becomes that.
"""

from __future__ import annotations

import json
import posix
import stat

from plugin import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TYPE = "istio-cni"  # of the plugin's entry, this agent's and Istio's
LARGEST = 1 << 20  # bytes of a conflist
LONGEST = 4096  # bytes of a path

_READ = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK


def take_over(environment: Mapping[bytes, bytes], stdin: bytes) -> None:
    """Become the successor; return if there is none, or if anything is not as expected: the call goes on waiting.

    Two things make one: another file than this process's where it was started from, and an entry of the same network that is
    not of this agent's kind. After an upgrade the entry is, and the next agent answers. An entry of Istio's names no
    cniConfDir: whatever is started with it never gets further than here, so that a call does this once.

    Args:
        environment: the process's, and the successor's.
        stdin: the network configuration that this process was given.
    """
    try:
        path = _read("/proc/self/cmdline", LONGEST).partition(b"\0")[0]
        if _is_replaced(path) and (config := _config(stdin.decode())):
            _become(path, environment, config)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return


def _is_replaced(path: bytes) -> bool:
    if not path.startswith(b"/"):
        return False
    there, own = posix.stat(path), posix.stat("/proc/self/exe")
    return (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino)


def _config(given: str) -> str:
    """Write what libcni would pass to the successor; empty if there is none."""
    members = jsontext.load_object(given)
    entry = _entry(members["cniConfDir"].value, members["name"].value)
    if not entry or "agentSocket" in entry:
        return ""
    asks = ("runtimeConfig",) if "capabilities" in entry else ()
    added = [members[key] for key in ("cniVersion", "name", "prevResult", *asks) if key in members]
    entry |= {each.key: given[each.start : each.end] for each in added}
    return "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in sorted(entry.items())) + "}"


def _entry(folder: str, network: str) -> dict[str, str]:
    """Find the plugin's entry in the first conflist of a network, in the order of the runtimes.

    Returns:
        Its members by key, each value as it is written; empty if there is none.

    Raises:
        OSError: if the directory or a conflist in it cannot be read, or if others than root may change it.
        ValueError: if the directory's path is relative, a conflist is too large or not JSON, or the network's has not one
            entry.
        LookupError, TypeError, AttributeError: if a conflist has another shape.
    """
    if not folder.startswith("/"):
        raise ValueError(folder)
    fd = posix.open(folder, _READ | posix.O_DIRECTORY)
    try:
        _require_roots(fd, stat.S_ISDIR)
        for name in sorted(posix.listdir(fd)):
            if not name.endswith(".conflist"):
                continue
            text = _read(name, LARGEST, fd).decode()
            found = jsontext.load_object(text)
            if found["name"].value == network:
                plugins = jsontext.elements(text, found["plugins"].start)
                (entry,) = (each for each in plugins if each.value["type"] == TYPE)
                return {key: text[begin:end] for key, _, begin, end in jsontext.members(text, entry.start)}
    finally:
        posix.close(fd)
    return {}


def _read(name: str, largest: int, folder_fd: int | None = None) -> bytes:
    """Read a file whole, if it is a regular one that only root may change."""
    fd = posix.open(name, _READ | posix.O_NOFOLLOW, dir_fd=folder_fd)
    try:
        _require_roots(fd, stat.S_ISREG)
        content = b""
        while part := posix.read(fd, largest + 1 - len(content)):
            content += part
    finally:
        posix.close(fd)
    if len(content) > largest:
        raise ValueError(name)
    return content


def _require_roots(fd: int, is_of_kind: Callable[[int], bool]) -> None:
    info = posix.fstat(fd)
    if info.st_uid or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or not is_of_kind(info.st_mode):
        raise PermissionError(stat.filemode(info.st_mode))


def _become(path: bytes, environment: Mapping[bytes, bytes], config: str) -> None:
    """Execute a file as the runtime would, but for SIGPIPE, which stays ignored: Go's programs handle it in any case."""
    fd = posix.memfd_create("stdin")
    try:
        left = config.encode()
        while left:
            left = left[posix.write(fd, left) :]
        posix.lseek(fd, 0, 0)
        posix.dup2(fd, 0)
    finally:
        posix.close(fd)
    posix.execve(path, [path], environment)
