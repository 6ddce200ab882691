"""Istio's own chart `istio-cni`, unchanged, as helm renders it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.chart.helm import Rendered, helm
from tests.programs.build import is_built
from tests.programs.lots import ISTIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CHART = ISTIO.folder / "charts" / "istio-cni"
ROLES = ("ClusterRole", "ClusterRoleBinding", "ServiceAccount")


class IstiosChart(Rendered):
    """Its objects for some values."""

    def __init__(self, home: Path, values: Mapping[str, Any], *options: str) -> None:
        """Render it, with options of `helm template`."""
        assert is_built(ISTIO), f"no {ISTIO.title} in {ISTIO.folder}; `make istio` builds it"
        done = helm("template", "istio-cni", str(CHART), "--namespace=istio-system", *options, values=values, home=home)
        assert done.returncode == 0, done.stderr
        super().__init__(done.stdout)

    @property
    def rights(self) -> list[dict[str, Any]]:
        """Its roles and its account."""
        return [each for each in self.objects if each["kind"] in ROLES]

    def environment(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Return the container's environment; `fields` has the values of the fields that it refers to."""
        found: dict[str, str] = dict(self["ConfigMap"]["data"])
        for each in self.container["env"]:
            if source := each.get("valueFrom"):
                (reference,) = source.values()
                found[each["name"]] = fields[reference.get("fieldPath") or reference["resource"]]
            else:
                found[each["name"]] = each["value"]
        return found

    def mounts(self) -> Iterator[tuple[str, str, bool]]:
        """Yield the container's mounts: path in the container, path on the node, and whether it is read-only."""
        volumes = {each["name"]: each["hostPath"]["path"] for each in self.pod["volumes"]}
        for each in self.container["volumeMounts"]:
            yield each["mountPath"], volumes[each["name"]], each.get("readOnly", False)
