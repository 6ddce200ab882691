"""What the CustomResourceDefinition of IstioControlPlanes has of a declaration."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import yaml

from installer.config.values import resource_values
from tests.generate.chart import bare

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTH = 128  # columns
IMAGE = ("hub", "tag")


def values() -> str:
    """Write the properties of `spec.values.cni`."""
    return _properties({key: _schema(each.kind.schema, each.doc) for key, each in resource_values().items()}, 22)


def image() -> str:
    """Write the properties of the spec that are the defaults of these values."""
    known = resource_values()
    docs = {key: f"Default of values.cni.{key}, for all images of the control plane." for key in IMAGE}
    return _properties({key: _schema(known[key].kind.schema, docs[key]) for key in IMAGE}, 14)


def _schema(of: Mapping[str, Any], doc: str) -> dict[str, Any]:
    """Make a structural schema; what an object may hold besides texts is left to the agent."""
    schema = bare(of)
    if isinstance(schema["type"], list):
        del schema["type"]
        schema = {"x-kubernetes-int-or-string": True, **schema}
    if "properties" in schema:
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {"description": doc.replace("`", ""), **schema}


class _Dumper(yaml.SafeDumper):
    """Lists on one line."""

    def represent_list(self, data: Any) -> yaml.SequenceNode:
        """Represent a list."""
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Dumper.add_representer(list, _Dumper.represent_list)


def _properties(properties: Mapping[str, Any], indent: int) -> str:
    text = yaml.dump(dict(properties), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH - indent)
    return textwrap.indent(text, " " * indent)
