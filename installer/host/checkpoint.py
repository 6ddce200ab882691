"""The checkpoint: a node's last good desired state, beside the agent's socket, with which the next agent begins (D10).

An invalid resource or an unreachable API server then changes nothing on a node whose agent is replaced. /run is empty after
a reboot: the chart's settings are in force until the agent has read the resource.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from installer.config.desired import ControlPlaneRef, DesiredState
from installer.config.kinds import SettingError
from installer.config.settings import declarations
from installer.host.directory import Directory
from installer.host.files import PRIVATE, explain
from installer.host.unanswered import waiting_for

if TYPE_CHECKING:
    from pathlib import Path

    from installer.config.kinds import Kind
    from installer.config.settings import Settings

LARGEST = 1 << 20  # bytes

_log = logging.getLogger(__name__)


def checkpoint_file(agent_socket: Path) -> Path:
    """Name the checkpoint."""
    return agent_socket.with_name("checkpoint.json")


def earlier_checkpoint_file(agent_socket: Path) -> Path:
    """Name the checkpoint of an agent of an earlier build."""
    return agent_socket.with_name("orders.json")


def save(desired: DesiredState) -> None:
    """Write the checkpoint; a failure is logged and holds up nothing."""
    path = checkpoint_file(desired.settings.agent_socket)
    saved = {
        "installed": desired.installed,
        "reason": desired.reason,
        "controlPlane": desired.control_plane._asdict() if desired.control_plane else None,
        "changes": dict(desired.changes),
    }
    try:
        with Directory(path.parent, path.parent) as folder:
            folder.write(path.name, (json.dumps(saved).encode(),), PRIVATE)
    except OSError as error:
        _log.warning("cannot write the checkpoint", extra={"file": str(path), "reason": explain(error)})


def load(base: Settings) -> DesiredState:
    """Read the checkpoint over the chart's settings as they are now; without one the chart's settings are in force.

    A file of the earlier name takes the checkpoint's place: only an agent of an earlier build writes it, after an upgrade or
    after a downgrade, so that it is the newer of the two.
    """
    path = checkpoint_file(base.agent_socket)
    kinds = {each.name: each.kind for each in declarations() if each.live}
    try:
        with waiting_for(path.parent):
            with suppress(FileNotFoundError):
                earlier_checkpoint_file(base.agent_socket).replace(path)
            with path.open("rb") as file:
                saved = json.loads(file.read(LARGEST))
        changes = {name: value for name, value in saved["changes"].items() if name in kinds}
        values: dict[str, Any] = {name: _parse(kinds[name], value) for name, value in changes.items()}
        by = ControlPlaneRef(**saved["controlPlane"]) if saved["controlPlane"] else None
        return DesiredState(
            replace(base, **values), bool(saved["installed"]), str(saved["reason"]), by, changes=changes
        )
    except FileNotFoundError:
        return DesiredState(base)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SettingError) as error:
        _log.warning(
            "cannot read the checkpoint; starting with the chart's settings",
            extra={"file": str(path), "reason": str(error)},
        )
        return DesiredState(base)


def _parse(kind: Kind, value: object) -> object:
    """Parse a saved value; an earlier build has saved all as texts."""
    return kind.parse_text(value) if isinstance(value, str) else kind.parse(value)
