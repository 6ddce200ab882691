"""The pod sandboxes of this node, from libcni's record of each ADD that succeeded.

libcni writes a file for each network of a pod (`libcni/api.go`, `cacheAdd`) after the last plugin of the list: a pod that
has one was started, with the configuration saved beside the result. This proves no netns to be a pod's:
`installer.repair.netns_proof` does that.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import logging
import os
import stat
import time
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.cniconfig.netconf import PLUGIN_TYPE
from installer.documents.objects import mapping, mappings_in
from installer.host.inotify import Watcher
from installer.host.unanswered import waiting_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from plugin.values import Address

KIND = "cniCacheV1"
INTERFACE = "eth0"  # the interface to the cluster network; others belong to Multus
# Bytes of a file. It holds the pod's annotations, of which the API server admits 256 KiB, each byte at most six in JSON, its
# ports, and the conflist (1 MiB at most) in Base64: 5 MiB. Most have a few thousand bytes.
LARGEST = 8 << 20
RESYNC = 600.0  # seconds after which each file is compared even if the directory is unchanged
FRESH = 10.0  # seconds after a change during which each check compares the file: libcni writes in place
CLOCK = 1.0  # seconds; a directory with a more recent mtime may change again within the same mtime
DELEGATING = "multus"  # type prefix of plugins that run configurations stored elsewhere

_NOT_UNDERSTOOD = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)

_log = logging.getLogger(__name__)


class Sandbox(NamedTuple):
    """A pod's sandbox, as runtime and plugins describe it.

    Attributes:
        container_id: its id; a pod gets a new one with each sandbox.
        uid: the pod's uid; empty if the runtime does not report it.
        netns: the node path of its netns as the runtime reports it; empty if it does not (libcni before 1.2).
        sandbox: the same path as a plugin's result reports it; empty if it does not.
        addresses: the addresses, in the result's order.
        network: the name of the configuration.
        has_entry: whether that configuration holds our entry; None: unknown.
        written: when its ADD succeeded, in seconds since 1970.
    """

    container_id: str
    namespace: str
    name: str
    uid: str
    netns: str
    sandbox: str
    addresses: tuple[Address, ...]
    network: str
    has_entry: bool | None
    written: float


class _File(NamedTuple):
    """A file as last read: what distinguishes a later version, and the parsed result."""

    version: tuple[int, ...]
    sandbox: Sandbox | None = None
    error: str = ""


class Sandboxes:
    """The node's sandboxes; each version of a file is read once."""

    def __init__(self, cache: Path, mount: Path | None = None) -> None:
        """Prepare; `cache` is libcni's folder on the node, `mount` its path for this process; None: the same."""
        self._results, self._on_node = (mount or cache) / "results", cache / "results"
        self._files: dict[str, _File] = {}
        self._fresh: dict[str, float] = {}  # files that may still be written to: until when, in monotonic time
        self._unlogged: set[str] = set()  # files that do not parse and are not logged yet
        self._logged: dict[str, str] = {}
        self._list: tuple[Sandbox, ...] = ()
        self._changed = False
        self._directory: tuple[int, int] | None = None
        self._next_resync = 0.0
        self.is_at_rest = False  # whether the last read saw no file that may still be written without a trace

    def watcher(self, wake: Callable[[str], None]) -> Watcher:
        """Build a watcher of the folder: refresh it before each `read`. `wake` gets the name of the result."""
        return Watcher({self._results: _is_result}, wake, {self._results: self._on_node}, sees_mounts=False)

    @property
    def unreadable(self) -> list[str]:
        """The results that do not parse, each with the reason."""
        return [f"{self._on_node / name}: {reason}" for name, reason in sorted(self._logged.items())]

    def read(self) -> tuple[Sandbox, ...]:
        """Return the current sandboxes, and earlier ones whose files are still there, such as after a reboot.

        The directory is listed only when a file was added or deleted (a node may have thousands of results), and while
        nothing changes the same tuple is returned: a check then costs one call of stat.

        Raises:
            OSError: if the folder cannot be read.
        """
        with waiting_for(self._on_node):
            return self._read_changed()

    def _read_changed(self) -> tuple[Sandbox, ...]:
        now, clock = time.time(), time.monotonic()
        self.is_at_rest, is_recent = False, False
        try:
            info = self._results.stat()
            directory = info.st_ino, info.st_mtime_ns
            if directory == self._directory and clock < self._next_resync:
                for name in [*self._fresh]:
                    self._compare(name, (self._results / name).lstat)
            else:
                with os.scandir(self._results) as entries:
                    found = {each.name: each for each in entries if _is_result(each.name)}
                for name in self._files.keys() - found.keys():
                    self._store(name, None)
                for name, entry in found.items():
                    self._compare(name, partial(entry.stat, follow_symlinks=False))
                is_recent = abs(now - info.st_mtime) <= CLOCK
                self._directory = None if is_recent else directory
                self._next_resync = clock + RESYNC
        except FileNotFoundError:  # no pod was started yet
            for name in [*self._files]:
                self._store(name, None)
            self._directory = None
        self._fresh = {name: until for name, until in self._fresh.items() if until > clock}
        self._log_unreadable(clock)
        self.is_at_rest = not self._fresh and not is_recent
        if self._changed:
            self._list = tuple(file.sandbox for file in self._files.values() if file.sandbox)
            self._changed = False
        return self._list

    def _compare(self, name: str, stat_file: Callable[[], os.stat_result]) -> None:
        try:
            info = stat_file()
        except OSError:  # deleted since
            self._store(name, None)
            return
        version = (info.st_ino, info.st_size, info.st_mtime_ns)
        known = self._files.get(name)
        if known is None or known.version != version:
            self._store(name, self._read(name, version, info))

    def _store(self, name: str, file: _File | None) -> None:
        before = self._files.pop(name, None)
        self._fresh.pop(name, None)
        self._unlogged.discard(name)
        self._logged.pop(name, None)
        if file:
            self._files[name] = file
            self._fresh[name] = time.monotonic() + FRESH
            if file.error:
                self._unlogged.add(name)
        self._changed |= bool((before and before.sandbox) or (file and file.sandbox))

    def _read(self, name: str, version: tuple[int, ...], info: os.stat_result) -> _File:
        if not stat.S_ISREG(info.st_mode):
            return _File(version)
        if info.st_size > LARGEST:
            return _File(version, error=f"saw {info.st_size} bytes, expected at most {LARGEST}")
        try:
            with (self._results / name).open("rb") as file:
                return _File(version, _sandbox(json.loads(file.read(LARGEST)), info.st_mtime))
        except _NOT_UNDERSTOOD as error:
            return _File(version, error=f"not in the form that libcni writes: {type(error).__name__}: {error!s:.120}")

    def _log_unreadable(self, clock: float) -> None:
        """Log each file that does not parse, once it is no longer being written."""
        for name in [name for name in self._unlogged if self._fresh.get(name, 0.0) - FRESH < clock - CLOCK]:
            self._unlogged.remove(name)
            self._logged[name] = self._files[name].error
            extra = {"file": str(self._on_node / name), "reason": self._logged[name]}
            _log.warning("cannot parse a result that the runtime keeps", extra=extra)


def container_id(name: str) -> str:
    """Read the container id from a result's name, `<network>-<container id>-<interface>`; any text for another name."""
    return name.removesuffix(f"-{INTERFACE}").rpartition("-")[2]


def _is_result(name: str) -> bool:
    return name.endswith(f"-{INTERFACE}")


def _sandbox(record: Mapping[str, Any], written: float) -> Sandbox | None:
    if record["kind"] != KIND or record["ifName"] != INTERFACE:
        return None
    arguments = dict(record.get("cniArgs") or ())
    if not arguments.get("K8S_POD_NAMESPACE") or not arguments.get("K8S_POD_NAME"):
        return None  # a container that belongs to no pod
    result = record.get("result")
    return Sandbox(
        container_id=_text(record.get("containerId")),
        namespace=_text(arguments["K8S_POD_NAMESPACE"]),
        name=_text(arguments["K8S_POD_NAME"]),
        uid=_text(arguments.get("K8S_POD_UID")),
        netns=_text(record.get("netns")),
        sandbox=next(_sandboxes(result), ""),
        addresses=tuple(_addresses(result)),
        network=_text(record.get("networkName")),
        has_entry=_has_entry(_text(record.get("config"))),
        written=written,
    )


def _sandboxes(result: object) -> Iterator[str]:
    for each in _items(mapping(result).get("interfaces")):
        if path := _text(mapping(each).get("sandbox")):
            yield path


def _addresses(result: object) -> Iterator[Address]:
    """Read a result's addresses: `ips` since 0.3.0, `ip4` and `ip6` before. Skip invalid ones, which prove nothing."""
    values = mapping(result)
    texts = [mapping(each).get("address") for each in _items(values.get("ips"))]
    texts += [mapping(values.get(old)).get("ip") for old in ("ip4", "ip6")]
    for text in texts:
        try:
            yield ipaddress.ip_interface(_text(text)).ip
        except ValueError:
            continue


@lru_cache(maxsize=8)  # pods of one network share it
def _has_entry(config: str) -> bool | None:
    """Find our entry in a configuration, at any depth (Multus copies it into `delegates`)."""
    try:
        value = json.loads(base64.b64decode(config, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
    found: bool | None = False
    for each in mappings_in(value):
        kind = each.get("type")
        if kind == PLUGIN_TYPE and "agentSocket" in each:
            return True
        if isinstance(kind, str) and kind.startswith(DELEGATING):
            found = None
    return found


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
