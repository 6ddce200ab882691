"""What a kind allows is what jsonschema allows, also where a kind decides without it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from installer.config.kinds import Kind

pytestmark = pytest.mark.pure

TEXTS = ["", "a", "a\n", "B", "aa"]
LISTS = [[], [True], [1], *([each] for each in TEXTS), ["a", "a"], ["a", "B", "a\n"]]
VALUES = [*TEXTS, *LISTS, True, False, 0, 1, 1.0, None, {}, {"a": "a"}]
TYPES: list[dict[str, Any]] = [
    {},
    *({"type": each} for each in ("string", "array", "boolean", "integer", "object", ["string", "integer"])),
]
FACETS: list[dict[str, Any]] = [
    {},
    *({"pattern": each} for each in ("^[a-z]*$", "^(a|B)+$")),
    *({"maxLength": each} for each in (0, 1)),
    *({"enum": each} for each in (["a", "B"], ["a\n"], [1])),
    *({"maxItems": each} for each in (0, 1)),
    {"minLength": 1},
    {"minItems": 1},
    {"minimum": 1},
    {"not": {"pattern": "^a$"}},
]
SIMPLE = [kind | facet for kind in TYPES for facet in FACETS]
OF_LISTS = [{"type": "array", "items": items} | facet for items in SIMPLE for facet in FACETS if "pattern" not in facet]


@pytest.mark.parametrize("schemas", [SIMPLE, OF_LISTS], ids=["simple", "of lists"])
def test_a_kind_allows_what_jsonschema_allows(schemas: list[dict[str, Any]]) -> None:
    for schema in schemas:
        kind, judge = Kind(schema), Draft202012Validator(anchored(schema))
        for value in VALUES:
            assert (not [*kind.flaws(value)]) is judge.is_valid(value), (schema, value)


def anchored(schema: Any) -> Any:
    """Have patterns match the whole text in Python, too, where `$` matches before a last line break."""
    if not isinstance(schema, dict):
        return schema
    return {key: value[:-1] + r"\Z" if key == "pattern" else anchored(value) for key, value in schema.items()}


@pytest.mark.parametrize(("level", "is_loaded"), [("warn", False), ("loud", True)])
def test_settings_load_jsonschema_only_to_say_what_is_wrong(level: str, *, is_loaded: bool) -> None:
    code = f"""
import sys
from contextlib import suppress
from installer.config.kinds import SettingError
from installer.config.settings import parse_settings
with suppress(SettingError):
    parse_settings({{"node_name": "node1", "log_level": "{level}", "exclude_namespaces": "istio-system,kube-system"}})
sys.exit("jsonschema" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == is_loaded
