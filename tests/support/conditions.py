"""What `kubectl wait` and `kubectl rollout status` wait for, told from an object as the API server has it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def meets(found: Mapping[str, Any], awaited: str) -> bool:
    """Tell whether an object has a condition or a value.

    Args:
        found: the object; empty, if there is none.
        awaited: as `kubectl wait --for` takes it: `condition=TYPE[=STATUS]` or `jsonpath={.PATH}=VALUE`.

    Raises:
        ValueError: if it is written otherwise.
    """
    status = found.get("status", {})
    if match := re.fullmatch(r"condition=(\w+)(?:=(\w+))?", awaited):
        generation = found.get("metadata", {}).get("generation", 0)
        held = {(each["type"], each["status"].lower()) for each in status.get("conditions", ())}
        return (
            status.get("observedGeneration", generation) >= generation
            and (match[1], (match[2] or "true").lower()) in held
        )
    if match := re.fullmatch(r"jsonpath=\{((?:\.\w+)+)\}=(.*)", awaited):
        value: Any = found
        for key in match[1][1:].split("."):
            value = value.get(key, {})
        return str(value) == match[2]
    raise ValueError(f"{awaited}: expected condition=TYPE[=STATUS] or jsonpath={{.PATH}}=VALUE")


def is_rolled_out(found: Mapping[str, Any]) -> bool:
    """Tell whether a Deployment, DaemonSet or StatefulSet has replaced all of its pods, and each is available."""
    spec, status = found.get("spec", {}), found.get("status", {})
    if not found or status.get("observedGeneration", 0) < found["metadata"]["generation"]:
        return False
    if found["kind"] == "DaemonSet":
        wanted = total = status["desiredNumberScheduled"]
        updated, available = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    else:
        wanted, total = spec["replicas"], status.get("replicas", 0)
        updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    return bool(wanted == total == updated == available)
