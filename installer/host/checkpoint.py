"""The last good orders of a node, kept beside the agent's socket: the next agent begins with them, not with the chart's (D10).

So a wrong resource, or an API server that is away, changes nothing on a node either when its agent is replaced. /run is
empty after a reboot: then the chart's settings are in force until the resource is heard.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from installer.config.desired import ControlPlane, Orders
from installer.config.settings import SettingError, declarations
from installer.host.files import PRIVATE, Directory, explain

if TYPE_CHECKING:
    from pathlib import Path

    from installer.config.settings import Settings

LARGEST = 1 << 20  # bytes

_log = logging.getLogger(__name__)


def orders_file(agent_socket: Path) -> Path:
    """Say where they are kept."""
    return agent_socket.with_name("orders.json")


def keep(orders: Orders) -> None:
    """Keep orders; that this fails holds up nothing."""
    path = orders_file(orders.settings.agent_socket)
    kept = {
        "installed": orders.installed,
        "reason": orders.reason,
        "controlPlane": orders.control_plane._asdict() if orders.control_plane else None,
        "changes": dict(orders.changes),
    }
    try:
        with Directory(path.parent, path.parent) as folder:
            folder.write(path.name, (json.dumps(kept).encode(),), PRIVATE)
    except OSError as error:
        _log.warning("the orders of this node could not be kept", extra={"file": str(path), "reason": explain(error)})


def recall(base: Settings) -> Orders:
    """Return the orders that were kept, over the chart's settings as they are now; the chart's if there are none."""
    path = orders_file(base.agent_socket)
    live = {each.name: each for each in declarations() if each.live}
    try:
        with path.open("rb") as file:
            kept = json.loads(file.read(LARGEST))
        changes = {name: text for name, text in kept["changes"].items() if name in live}
        values: dict[str, Any] = {name: live[name].parse(text) for name, text in changes.items()}
        by = ControlPlane(**kept["controlPlane"]) if kept["controlPlane"] else None
        return Orders(
            replace(base, **values), bool(kept["installed"]), str(kept["reason"]), by, changes=tuple(changes.items())
        )
    except FileNotFoundError:
        return Orders(base)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SettingError) as error:
        _log.warning("the orders that were kept are not understood", extra={"file": str(path), "reason": str(error)})
        return Orders(base)
