"""The state of a node as its agent knows it: the installed files, and what prevents redirection. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Condition(NamedTuple):
    """A condition of readiness: `reason` says why it is not met, None if it is; `detail` says how it is met."""

    name: str
    reason: str | None
    detail: str = ""

    def __str__(self) -> str:
        well = f"ok, {self.detail}" if self.detail else "ok"
        return f"{self.name}: {well if self.reason is None else self.reason}"


class Form(Enum):
    """The form of the plugin's entry in the runtime's configuration."""

    CHAINED = "Chained"  # into a list of plugins
    OWNED = "Owned"  # in a list of its own, made from the runtime's configuration
    STANDALONE = "Standalone"  # by a configuration of its own


class Repair(NamedTuple):
    """One repair: when, in seconds since 1970, and of which file."""

    time: float
    file: str


@dataclass(frozen=True)
class NodeState:
    """The result of the last reconciliation.

    Attributes:
        installed: the plugin file and its entry are in place.
        removed: they are not in place, as desired.
        conflict: another program keeps undoing the installation (F9): `installed` is false also between two of its writes.
        stays: why the plugin file remains after everything else is removed, and what to do (F34); empty if it does not.
        reason: why the node is not in its desired state; None if it is.
        conflist: the name of the file in cniConfDir with the entry.
        form: the form of the entry in that file.
        digest: the SHA-256 of the plugin file, in hexadecimal digits; empty if not compared yet.
        repairs: the number of repairs after other programs changed the installation.
        last_repair: the last repair; None: there was none.
        meshes: the types of other meshes' plugins in that file.
        skipped: files in cniConfDir that are not valid network configurations, each with the reason.
    """

    installed: bool = False
    removed: bool = False
    conflict: bool = False
    stays: str = ""
    reason: str | None = "not looked at yet"
    conflist: str | None = None
    form: Form = Form.CHAINED
    digest: str = ""
    repairs: int = 0
    last_repair: Repair | None = None
    meshes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
