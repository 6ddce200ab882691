"""What the resource makes of the DaemonSet: the values that need other pods, laid over the chart's own. Pure.

The chart writes down what it says by itself (annotation CHART_VALUES). The governing resource's values are laid over that,
mappings key by key, as a server-side apply can add to a mapping of helm's, but not take from it. All of these
fields are always applied, so that what leaves the resource goes back to the chart's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from installer.controller.facts import CONTAINER
from installer.objects import CONTROLLER, PARKED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.resource import Wanted

CHART_VALUES, RESOURCE_VALUES = "cni.istio.io/chart-values", "cni.istio.io/resource-values"

_FROM_DAEMONSET = ("hub", "tag", "pullPolicy", "podAnnotations", "resources")
_FROM_AGENTS = {"cniBinDir": "cni_bin_dir", "cniConfDir": "cni_conf_dir"}


class RolloutError(ValueError):
    """The DaemonSet is not one of this chart's: the message says what was seen, what was expected and what to do."""


def overriding(wanted: Wanted | None) -> dict[str, Any]:
    """Return the values that a resource lays over the chart's; none for no resource."""
    if wanted is None:
        return {}
    values = {name: wanted.daemonset[name] for name in _FROM_DAEMONSET if name in wanted.daemonset}
    if "tag" in values:
        values["tag"] = str(values["tag"])  # of digits alone it is a number in YAML
    return values | {key: wanted.agents[name] for key, name in _FROM_AGENTS.items() if name in wanted.agents}


def applied(daemonset: Mapping[str, Any], wanted: Wanted | None, *, parked: bool) -> dict[str, Any]:
    """Make the object to be applied, on the server's side, with force.

    Args:
        daemonset: as it is.
        wanted: what the governing resource asks for; None: what the chart says.
        parked: whether it is to have no pods.

    Raises:
        RolloutError: if it does not say what the chart says.
    """
    metadata = daemonset["metadata"]
    own = overriding(wanted)
    values = _laid_over(_chart_values(daemonset), own)
    container = {
        "name": CONTAINER,
        "image": _image(str(values["hub"]), str(values["tag"])),
        "imagePullPolicy": values["pullPolicy"],
        "resources": values["resources"],
        "env": [
            {"name": "CNI_BIN_DIR", "value": values["cniBinDir"]},
            {"name": "CNI_CONF_DIR", "value": values["cniConfDir"]},
        ],
    }
    volumes = [
        {"name": "cni-bin-dir", "hostPath": {"path": values["cniBinDir"]}},
        {"name": "cni-conf-dir", "hostPath": {"path": values["cniConfDir"]}},
    ]
    # Whole, as a server-side apply takes the mapping for one value: what it does not name would be gone.
    selector = _nodes_of(daemonset) | (PARKED if parked else {})
    spec = {"containers": [container], "volumes": volumes, "nodeSelector": selector}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "annotations": {RESOURCE_VALUES: json.dumps(own, sort_keys=True)},
        },
        "spec": {"template": {"metadata": {"annotations": values["podAnnotations"]}, "spec": spec}},
    }


def is_applied(daemonset: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Say whether a DaemonSet is as `applied` would have it, so that nothing is to be written."""
    parked = _selector(daemonset) == _selector(wanted)
    compared = ("metadata", "spec")  # in lists objects do not say of what kind they are
    return parked and all(_holds(daemonset[part], wanted[part]) for part in compared)


def is_parked(daemonset: Mapping[str, Any]) -> bool:
    """Say whether it is kept from having pods."""
    return PARKED.items() <= _selector(daemonset).items()


def selects(daemonset: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Say whether a node of these labels is to have a pod, or would be if the DaemonSet were not parked."""
    return all(labels.get(key) == value for key, value in _nodes_of(daemonset).items())


def template_generation(daemonset: Mapping[str, Any]) -> str:
    """Return which generation of its template new pods are made of; empty: unknown."""
    annotations = daemonset["metadata"].get("annotations") or {}
    return str(annotations.get("deprecated.daemonset.template.generation", ""))


def is_of_a_resource(daemonset: Mapping[str, Any]) -> bool:
    """Say whether a resource's values are in it."""
    written = (daemonset["metadata"].get("annotations") or {}).get(RESOURCE_VALUES)
    return written not in (None, "", "{}")


def others(daemonset: Mapping[str, Any]) -> str:
    """Name who but us has written on it last."""
    entries = [
        each
        for each in daemonset["metadata"].get("managedFields") or ()
        if each.get("manager") != CONTROLLER and not each.get("subresource")
    ]
    latest: Mapping[str, Any] = max(entries, key=lambda each: str(each.get("time", "")), default={})
    return str(latest.get("manager") or "another program")


def _selector(daemonset: Mapping[str, Any]) -> Mapping[str, str]:
    return daemonset["spec"]["template"]["spec"].get("nodeSelector") or {}


def _nodes_of(daemonset: Mapping[str, Any]) -> dict[str, str]:
    """Return the selector by which it has pods when it is not parked."""
    return {key: value for key, value in _selector(daemonset).items() if key not in PARKED}


def _chart_values(daemonset: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = daemonset["metadata"]
    where = f"DaemonSet {metadata['namespace']}/{metadata['name']}"
    text = (metadata.get("annotations") or {}).get(CHART_VALUES)
    try:
        values = json.loads(text) if text else None
    except ValueError:
        values = None
    missing = {*_FROM_DAEMONSET, *_FROM_AGENTS} - (values.keys() if isinstance(values, dict) else set())
    if missing or not isinstance(values, dict):
        raise RolloutError(
            f"{where}: saw the annotation {CHART_VALUES}={text!r:.200}, expected a JSON object with "
            f"{', '.join(sorted(missing))}; helm upgrade with the chart of this release writes it"
        )
    return values


def _image(hub: str, tag: str) -> str:
    return f"{hub.rstrip('/')}/install-cni:{tag}" if hub else f"install-cni:{tag}"


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    laid = dict(below)
    for key, value in above.items():
        under = laid.get(key)
        laid[key] = _laid_over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return laid


def _holds(seen: object, wanted: object) -> bool:
    """Say whether all that is wanted is there; items of lists are found by their names."""
    if isinstance(wanted, dict):
        return isinstance(seen, dict) and all(_holds(seen.get(key), each) for key, each in wanted.items() if each != {})
    if isinstance(wanted, list) and all(isinstance(each, dict) and "name" in each for each in wanted):
        by_name = {each.get("name"): each for each in seen} if isinstance(seen, list) else {}
        return all(_holds(by_name.get(each["name"]), each) for each in wanted)
    return seen == wanted
