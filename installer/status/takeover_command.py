"""`install-cni takeover --check`: read the cluster, and write what a take-over needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from installer.status import takeover
from installer.status.access import Access, Listed, Source, UnreachableError, sources
from installer.status.command import CannotAskError
from installer.status.istio_agent import istios
from installer.status.model import Cause, Unavailable
from installer.status.takeover_settings import config_maps
from installer.terminal.printable import write
from installer.terminal.stdout import style

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from installer.status.model import Object

_PODS = Source("pods", "/api/v1/pods", {"labelSelector": takeover.INJECTED}, None)


def run(output: str, kubeconfig: Path | None, context: str | None) -> int:
    """Run the command, and return the exit status.

    Raises:
        CannotAskError: with what was seen, what was expected and what to do.
    """
    try:
        access = Access(kubeconfig, context)
        daemonsets = _objects(access.listed(sources(None)["daemonsets"]))
        istios_agents = [] if isinstance(daemonsets, Unavailable) else istios(daemonsets)
        data = {
            (each["metadata"]["namespace"], name): _data(access, each["metadata"]["namespace"], name)
            for each in istios_agents
            for name in config_maps(each)
        }
        found = takeover.plan(daemonsets, data, _objects(access.listed(_PODS)))
    except UnreachableError as error:
        raise CannotAskError(str(error)) from error
    text = takeover.as_text(found, style()) if output == "text" else json.dumps(takeover.plain(found), indent=2) + "\n"
    write(text)
    return 0 if found.is_possible else 1


def _objects(answer: Listed | Unavailable) -> Sequence[Object] | Unavailable:
    return answer.objects if isinstance(answer, Listed) else answer


def _data(access: Access, namespace: str, name: str) -> Mapping[str, str] | Unavailable:
    """Read the data of a ConfigMap; empty if it does not exist."""
    answer = access.got(Source("configmaps", f"/api/v1/namespaces/{namespace}/configmaps/{name}", {}, namespace))
    if isinstance(answer, Unavailable):
        return {} if answer.cause is Cause.NO_DEFINITION else answer
    return answer.get("data") or {}
