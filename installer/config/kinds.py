"""The kinds of values that settings have: syntax, allowed values, and conversion for the code. Pure.

A kind is a JSON schema and a function. The schema describes the value in the chart and in an IstioControlPlane. A flag or an
environment variable is text, which `decode` first turns into such a value: each value is checked once, whatever its source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from enum import Enum

    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "object": "a mapping",
    "string": "a string",
}


class SettingError(ValueError):
    """An invalid value of a setting: the message says what was seen and what was expected."""


class Flaw(NamedTuple):
    """What is wrong with a value.

    Attributes:
        place: the keys and indices that lead to the fault.
        message: what was seen and what was expected.
        unknown: the unknown name, if that is the fault.
        known: the known names.
    """

    place: tuple[str | int, ...]
    message: str
    unknown: str = ""
    known: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        schema: the value's JSON schema; its `description` says what is expected, a pattern matches the whole text.
        convert: converts an allowed value for the code; raises SettingError for faults that no schema can express.
        decode: parses the text of a flag or an environment variable into a value.
    """

    schema: Mapping[str, Any] = field(hash=False)
    convert: Callable[[Any], object] = lambda value: value
    decode: Callable[[str], Any] = lambda text: text

    def flaws(self, value: object, *, types_alone: bool = False) -> Iterator[Flaw]:
        """Find the faults of a value, the first at each place.

        Args:
            value: as parsed from JSON or YAML.
            types_alone: whether to check types only, and accept values that are not listed.
        """
        if _is_surely_allowed(value, self.schema):
            return
        found: dict[tuple[str | int, ...], Flaw] = {}
        for error in self._validator.iter_errors(value):
            if not (types_alone and error.validator == "enum" and not error.absolute_path):
                for each in _flaws(error):
                    found.setdefault((*each.place, each.unknown), each)
        yield from found.values()

    def parse(self, value: object) -> object:
        """Convert a value for the code.

        Raises:
            SettingError: for a value that is not allowed.
        """
        for flaw in self.flaws(value):
            raise SettingError(flaw.message)
        return self.convert(value)

    def parse_text(self, text: str) -> object:
        """Convert the text of a flag or an environment variable for the code; raises as `parse` does."""
        return self.parse(self.decode(text))

    @cached_property
    def _validator(self) -> Draft202012Validator:
        from jsonschema import Draft202012Validator  # noqa: PLC0415 - it takes longer to import than `--help` takes

        return Draft202012Validator(_with_python_anchors(self.schema))


def _is_surely_allowed(value: object, schema: Mapping[str, Any]) -> bool:
    """Tell that a schema allows a simple value, without jsonschema, which takes 2 MB: for any other one that has to decide."""
    facets = schema.keys() - {"type", "description"}
    if isinstance(value, bool):
        return schema.get("type") == "boolean" and not facets
    if isinstance(value, str):
        return (
            schema.get("type") == "string"
            and facets <= {"enum", "pattern", "maxLength"}
            and value in schema.get("enum", (value,))
            and bool(re.search(_with_python_anchors(schema).get("pattern", ""), value))
            and len(value) <= schema.get("maxLength", len(value))
        )
    if isinstance(value, list):
        return (
            schema.get("type") == "array"
            and facets <= {"items", "maxItems"}
            and len(value) <= schema.get("maxItems", len(value))
            and all(_is_surely_allowed(each, schema.get("items", {})) for each in value)
        )
    return False


def encode(value: object) -> str:
    """Write a value as the text of a flag or an environment variable: lists with commas, booleans as in JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def text(expected: str, pattern: str = "", convert: Callable[[str], object] = str, longest: int | None = None) -> Kind:
    """Make the kind for a text.

    Args:
        expected: the expected text, for errors.
        pattern: matches the whole text, without top-level alternatives, alike in RE2, ECMAScript and Python; empty: any text.
        convert: converts it for the code.
        longest: maximum length in characters.
    """
    schema: dict[str, Any] = {"type": "string", "description": expected}
    if pattern:
        schema["pattern"] = f"^{pattern}$"
    if longest:
        schema["maxLength"] = longest
    return Kind(schema, convert)


def choice(values: Iterable[Enum], *, none: str = "", ignores_case: bool = False) -> Kind:
    """Make the kind for one value of an enumeration.

    Args:
        values: the enumeration, or some of it.
        none: an additional first choice, which is None to the code.
        ignores_case: whether flags and environment variables may be in upper case.
    """
    first = {none: None} if none else {}
    allowed: dict[str, Enum | None] = first | {str(each.value): each for each in values}
    expected = f"one of {', '.join(allowed)}"

    def convert(value: str) -> object:
        if value not in allowed:
            raise SettingError(f"{saw(value)}, expected {expected}")
        return allowed[value]

    schema = {"type": "string", "enum": list(allowed), "description": expected}
    return Kind(schema, convert, str.lower) if ignores_case else Kind(schema, convert)


def boolean() -> Kind:
    """Make the kind for true and false."""
    return Kind({"type": "boolean"}, decode=lambda text: {"true": True, "false": False}.get(text.lower(), text))


def names(expected: str, pattern: str, longest: int, most: int) -> Kind:
    """Make the kind for a list of names, separated by commas in text; the code gets a tuple without duplicates.

    Args:
        expected: the expected name, for errors.
        pattern: matches a name.
        longest: maximum length of a name in characters.
        most: maximum number of names.
    """
    item = {"type": "string", "maxLength": longest, "pattern": f"^{pattern}$", "description": expected}
    schema = {"type": "array", "maxItems": most, "items": item, "description": f"at most {most} names"}
    return Kind(
        schema,
        convert=lambda value: tuple(dict.fromkeys(value)),
        decode=lambda text: [name for part in text.split(",") if (name := part.strip())],
    )


def _with_python_anchors(schema: Any) -> Any:
    """End patterns as Python requires: `$` would allow a trailing line break."""
    if not isinstance(schema, dict):
        return schema
    converted = {key: _with_python_anchors(value) for key, value in schema.items()}
    return (
        converted | {"pattern": converted["pattern"].removesuffix("$") + r"\Z"} if "pattern" in converted else converted
    )


def _flaws(error: ValidationError) -> Iterator[Flaw]:
    place = tuple(error.absolute_path)
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    if error.validator == "additionalProperties" and isinstance(error.instance, dict) and "properties" in schema:
        allowed = tuple(schema["properties"])
        for name in error.instance.keys() - schema["properties"].keys():
            yield Flaw(place, "", str(name), allowed)
        return
    if error.validator == "required" and isinstance(error.instance, dict):
        missing = ", ".join(name for name in schema["required"] if name not in error.instance)
        yield Flaw(place, f"{saw(error.instance)}, expected a mapping with {missing}")
        return
    if error.validator == "type" or "description" not in schema:
        types = schema.get("type", ())
        expected = " or ".join(TYPES[each] for each in ([types] if isinstance(types, str) else types)) or error.message
    else:
        expected = schema["description"]
    yield Flaw(place, f"{saw(error.instance)}, expected {expected}")


def saw(value: object) -> str:
    """Return the start of a message: what was seen."""
    return "saw an empty value" if value == "" else f"saw {value!r:.80}"
