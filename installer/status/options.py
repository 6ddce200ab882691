"""What `install-cni status` is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command is told.

    Attributes:
        output: table, wide, json or yaml.
        watch: whether it goes on to show what changes.
        wait: whether it ends when all is well.
        timeout: seconds after which it does not wait any longer; None: it always does.
        kubeconfig, context: how to reach the API server; None for the defaults.
        namespace: that of the DaemonSet; None if it is to be searched for.
    """

    output: str
    watch: bool
    wait: bool
    timeout: float | None
    kubeconfig: Path | None
    context: str | None
    namespace: str | None
