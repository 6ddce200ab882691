"""The declaration of a value. Pure.

Declarations define flags and environment variables; from them, `make generate` writes the chart's schema and values, the
agents' environment, the resource's definition and the tables of the documentation. A test fails if these are out of date.
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
        key: its name in chart and resource; those of the chart of 2019 and ours alike.
        kind: its type and syntax.
        default: as in YAML.
        doc: its purpose: sentences, with names in backticks.
        in_chart: whether `values.cni` of the chart has it.
        in_resource: whether `values.cni` of the resource has it.
        by_platform: whether the chart's presets may override the default.
        chart: the chart's overrides of the kind's schema.
        values: the members of a value that is an object.
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
    """A value that the node agent takes as a flag or an environment variable.

    Attributes:
        name: its name in Python.
        metavar: the placeholder for the value in `--help`.
        live: whether a running agent applies an IstioControlPlane's value; if not, the value needs new pods.
        decides: whether it affects the verdict on pods, so that `explain` and `trace` take it.
        shown_default: the text to show for a default that is computed.
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
        """The default, as the text of a flag or an environment variable."""
        return encode(self.default)

    @property
    def in_environment(self) -> bool:
        """Whether the chart generates its variable in the DaemonSet; those that the controller changes are written by hand."""
        return self.in_chart and (self.live or not self.in_resource)


def declare(
    kind: Kind, default: object, metavar: str, *, in_chart: bool = False, in_resource: bool = False, **others: Any
) -> Any:
    """Declare a field of `Settings`, described as a `Setting`; a live one is a value of chart and resource."""
    in_resource |= others.get("live", False)
    where = {"in_chart": in_chart or in_resource, "in_resource": in_resource}
    return field(metadata={"kind": kind, "default": default, "metavar": metavar, **where, **others})


def key_of(name: str) -> str:
    """Return a setting's name in chart and resource: `cniBinDir` for `cni_bin_dir`."""
    first, *others = name.split("_")
    return first + "".join(part.upper() if part == "cni" else part.capitalize() for part in others)
