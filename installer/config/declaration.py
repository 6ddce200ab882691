"""What a value is declared with. Pure.

From declarations come flags and environment variables, and `make generate` writes from them the chart's schema and values, its
ConfigMap, the definition of the resource and the tables of the documentation; a test fails where these differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from installer.config.kinds import Kind, encode

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of the chart, or of an IstioControlPlane, or of both.

    Attributes:
        key: its name in chart and resource, those of the chart of 2019 and ours in the same manner.
        kind: how it is written.
        default: as in YAML.
        doc: what it is for: sentences, with names between backticks.
        in_chart: whether `values.cni` of the chart has it.
        in_resource: whether `values.cni` of the resource has it.
        by_platform: whether the chart's presets may have another default.
        chart: how the chart's schema differs from the kind's.
        values: of a value that is an object, what is in it.
    """

    key: str
    kind: Kind
    default: Any = field(hash=False)
    doc: str
    in_chart: bool = True
    in_resource: bool = False
    by_platform: bool = False
    chart: Mapping[str, Any] = field(default_factory=dict, hash=False)
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Setting(Value):
    """A value that the node agent is given, as a flag or an environment variable.

    Attributes:
        name: its name in Python.
        metavar: what stands for the value in `--help`.
        live: whether a running agent takes up what an IstioControlPlane says; what does not needs new pods.
        decides: whether it decides about pods, so that `explain` and `trace` take it.
        shown_default: the default, where it cannot be written down.
    """

    name: str
    metavar: str
    live: bool = False
    decides: bool = False
    shown_default: str = ""

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return self.name.upper()

    @property
    def default_text(self) -> str:
        """The default, as a flag or an environment variable has it."""
        return encode(self.default)

    @property
    def in_config_map(self) -> bool:
        """Whether the chart puts it into the agents' ConfigMap; what the controller changes is in the DaemonSet."""
        return self.in_chart and (self.live or not self.in_resource)


def declare(
    kind: Kind, default: object, metavar: str, *, in_chart: bool = False, in_resource: bool = False, **others: Any
) -> Any:
    """Declare a field of `Settings`, as `Setting` describes it; what is live is a value of chart and resource."""
    in_resource |= others.get("live", False)
    where = {"in_chart": in_chart or in_resource, "in_resource": in_resource}
    return field(metadata={"kind": kind, "default": default, "metavar": metavar, **where, **others})


def key_of(name: str) -> str:
    """Return the name in chart and resource of a setting: `cniBinDir` of `cni_bin_dir`."""
    first, *others = name.split("_")
    return first + "".join(part.upper() if part == "cni" else part.capitalize() for part in others)
