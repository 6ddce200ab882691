"""The options of `install-cni status`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command's options.

    Attributes:
        output: table, wide, json or yaml.
        watch: whether to keep showing changes.
        wait: whether to end when everything is healthy.
        timeout: seconds to wait at most; None: no limit.
        kubeconfig, context: how to reach the API server; None for the defaults.
        namespace: the DaemonSet's; None: search all.
    """

    output: str
    watch: bool
    wait: bool
    timeout: float | None
    kubeconfig: Path | None
    context: str | None
    namespace: str | None
