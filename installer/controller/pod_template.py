"""The DaemonSet's desired pod template: the resource's values that need new pods, over the chart's own. Pure.

The chart records its own values in the annotation CHART_VALUES. The controller owns only those of the DaemonSet's fields that
the active resource sets (F39): whoever applies the chart owns the rest. A field that is removed from the resource
first gets the chart's value, and then the owner of that annotation, so that it is never missing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.controller import field_ownership
from installer.fleet.objects import CONTAINER, annotation, pod_spec
from installer.kube.names import CONTROLLER, PARKED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.config.control_plane import ControlPlaneSpec
    from installer.controller.field_ownership import Field

CHART_VALUES, RESOURCE_VALUES = "cni.istio.io/chart-values", "cni.istio.io/resource-values"

_FROM_DAEMONSET = ("hub", "tag", "pullPolicy", "podAnnotations", "resources")


class _Directory(NamedTuple):
    variable: str
    volume: str


_DIRECTORIES = {
    "cniBinDir": _Directory("CNI_BIN_DIR", "cni-bin-dir"),
    "cniConfDir": _Directory("CNI_CONF_DIR", "cni-conf-dir"),
}


_OF_CHART = ("f:metadata", "f:annotations", f"f:{CHART_VALUES}")  # the owner of this field applies the chart
_SELECTOR = ("f:spec", "f:template", "f:spec", "f:nodeSelector")


class RolloutError(ValueError):
    """The DaemonSet is not one of this chart's: the message says what was seen, what was expected and what to do."""


class Wish(NamedTuple):
    """The desired fields of the DaemonSet.

    Attributes:
        own: the values of the fields that the controller owns.
        returned: the chart's values of the fields to hand back.
    """

    own: Mapping[Field, Any]
    returned: Mapping[Field, Any]

    def manifest(self, daemonset: Mapping[str, Any]) -> dict[str, Any]:
        """Make the object for a forced server-side apply; the caller then hands back the returned fields."""
        names = {key: daemonset["metadata"][key] for key in ("name", "namespace")}
        # In the chart's order: the API server would reorder list items to any other.
        made = field_ownership.build_object(dict(sorted({**self.own, **self.returned}.items())))
        return {"apiVersion": "apps/v1", "kind": "DaemonSet", **made, "metadata": made["metadata"] | names}

    def handed_over(self, written: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the managedFields that hand back the returned fields of the written DaemonSet."""
        return field_ownership.handed_over(written, self.returned, manager=CONTROLLER, to_owner_of=_OF_CHART)


def overriding(spec: ControlPlaneSpec | None) -> dict[str, Any]:
    """Return the values with which a resource overrides the chart's; empty without a resource."""
    if spec is None:
        return {}
    values = {key: spec.given[key] for key in (*_FROM_DAEMONSET, *_DIRECTORIES) if key in spec.given}
    if "tag" in values:
        values["tag"] = str(values["tag"])  # YAML reads a tag of digits alone as a number
        if not values["tag"]:
            del values["tag"]  # the chart's
    return values


def build_wish(daemonset: Mapping[str, Any], spec: ControlPlaneSpec | None, *, parked: bool) -> Wish:
    """Compute the desired fields of the DaemonSet.

    Without `spec` the chart's values apply. A parked DaemonSet has no pods.

    Raises:
        RolloutError: if it does not record the chart's values.
    """
    values, overrides = _chart_values(daemonset), overriding(spec)
    image = {key: values[key] for key in ("hub", "tag")} if overrides.keys() & {"hub", "tag"} else {}
    own = field_ownership.fields(_spec(image | overrides))
    own[("f:metadata", "f:annotations", f"f:{RESOURCE_VALUES}")] = json.dumps(overrides, sort_keys=True)
    # The selector is one value: it keeps the chart's labels.
    charts = field_ownership.fields(_spec(values)) | {_SELECTOR: _nodes_of(daemonset)}
    if parked:
        own[_SELECTOR] = charts[_SELECTOR] | PARKED
    former = _owned(daemonset) | ({_SELECTOR} if is_parked(daemonset) else set())
    return Wish(own, {field: charts[field] for field in former - own.keys() if field in charts})


def is_fulfilled(daemonset: Mapping[str, Any], wish: Wish) -> bool:
    """Return whether a DaemonSet has its desired fields, so that no write is needed."""
    has_values = all(field_ownership.value(daemonset, field) == value for field, value in wish.own.items())
    return has_values and not wish.returned and not owns_more(daemonset, wish)


def owns_more(daemonset: Mapping[str, Any], wish: Wish) -> bool:
    """Return whether the controller owns excess fields, as releases before F39 left them."""
    return not _owned(daemonset) <= wish.own.keys()


def is_parked(daemonset: Mapping[str, Any]) -> bool:
    """Return whether it is parked."""
    return PARKED.items() <= _selector(daemonset).items()


def is_of_a_resource(daemonset: Mapping[str, Any]) -> bool:
    """Return whether it has a resource's values."""
    return annotation(daemonset, RESOURCE_VALUES) not in (None, "", "{}")


def name_other_writer(daemonset: Mapping[str, Any]) -> str:
    """Name the last other manager that wrote to it."""
    entries = [
        each
        for each in daemonset["metadata"].get("managedFields") or ()
        if each.get("manager") != CONTROLLER and not each.get("subresource")
    ]
    latest: Mapping[str, Any] = max(entries, key=lambda each: str(each.get("time", "")), default={})
    return str(latest.get("manager") or "another program")


def _selector(daemonset: Mapping[str, Any]) -> Mapping[str, str]:
    selector: Mapping[str, str] = pod_spec(daemonset).get("nodeSelector") or {}
    return selector


def _nodes_of(daemonset: Mapping[str, Any]) -> dict[str, str]:
    """Return its selector without parking."""
    return {key: value for key, value in _selector(daemonset).items() if key not in PARKED}


def _chart_values(daemonset: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = daemonset["metadata"]
    where = f"DaemonSet {metadata['namespace']}/{metadata['name']}"
    text = annotation(daemonset, CHART_VALUES)
    try:
        values = json.loads(text) if text else None
    except ValueError:
        values = None
    missing = {*_FROM_DAEMONSET, *_DIRECTORIES} - (values.keys() if isinstance(values, dict) else set())
    if missing or not isinstance(values, dict):
        raise RolloutError(
            f"{where}: saw the annotation {CHART_VALUES}={text!r:.200}, expected a JSON object with "
            f"{', '.join(sorted(missing))}; helm upgrade with the chart of this release writes it"
        )
    return values


def _owned(daemonset: Mapping[str, Any]) -> set[Field]:
    return field_ownership.applied_by(daemonset, CONTROLLER)


def _spec(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values to fields of the DaemonSet; hub and tag are both present or both absent."""
    container: dict[str, Any] = {"name": CONTAINER}
    if "tag" in values:
        container["image"] = _image(str(values["hub"]), str(values["tag"]))
    if "pullPolicy" in values:
        container["imagePullPolicy"] = values["pullPolicy"]
    container["resources"] = values.get("resources") or {}
    paths = [(name, values[name]) for name in _DIRECTORIES if name in values]
    container["env"] = [{"name": _DIRECTORIES[name].variable, "value": path} for name, path in paths]
    volumes = [{"name": _DIRECTORIES[name].volume, "hostPath": {"path": path}} for name, path in paths]
    spec = {"containers": [container], "volumes": volumes}
    metadata = {"annotations": values.get("podAnnotations") or {}}
    return {"spec": {"template": {"metadata": metadata, "spec": spec}}}


def _image(hub: str, tag: str) -> str:
    """Name the image like the chart does (istio-cni.image)."""
    name = f"{hub.removesuffix('/')}/install-cni" if hub else "install-cni"
    return f"{name}{tag}" if tag.startswith("@") else f"{name}:{tag}"
