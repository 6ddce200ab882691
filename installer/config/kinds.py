"""The kinds of values that settings have: how each is written, what is allowed, and what the code gets. Pure.

A kind is a JSON schema and a function. The schema is that of the value in the chart and in an IstioControlPlane. A flag or an
environment variable is text, from which `decode` first makes such a value: each value is checked in one way, whoever gives it.
"""

from __future__ import annotations

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
    """A value that a setting cannot have: the message says what was seen and what was expected."""


class Flaw(NamedTuple):
    """What is wrong with a value.

    Attributes:
        place: where in the value: the keys and indices that lead there.
        message: what was seen and what was expected.
        unknown: the name that does not exist, if that is what is wrong.
        known: the names that do.
    """

    place: tuple[str | int, ...]
    message: str
    unknown: str = ""
    known: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        schema: the value's JSON schema; a `description` in it says what is expected, a pattern is for the whole text.
        convert: makes what the code uses from a value that the schema allows; raises SettingError for what no schema can say.
        decode: makes a value from the text of a flag or an environment variable.
    """

    schema: Mapping[str, Any] = field(hash=False)
    convert: Callable[[Any], object] = lambda value: value
    decode: Callable[[str], Any] = lambda text: text

    def flaws(self, value: object, *, types_alone: bool = False) -> Iterator[Flaw]:
        """Find what is wrong with a value, the first at each place.

        Args:
            value: as parsed from JSON or YAML.
            types_alone: whether a value may be another one than the listed ones.
        """
        found: dict[tuple[str | int, ...], Flaw] = {}
        for error in self._validator.iter_errors(value):
            if not (types_alone and error.validator == "enum" and not error.absolute_path):
                for each in _flaws(error):
                    found.setdefault((*each.place, each.unknown), each)
        yield from found.values()

    def parse(self, value: object) -> object:
        """Make what the code uses of a value.

        Raises:
            SettingError: for a value that is not allowed.
        """
        for flaw in self.flaws(value):
            raise SettingError(flaw.message)
        return self.convert(value)

    def parse_text(self, text: str) -> object:
        """Make what the code uses of the text of a flag or an environment variable.

        Raises:
            SettingError: for a value that is not allowed.
        """
        return self.parse(self.decode(text))

    @cached_property
    def _validator(self) -> Draft202012Validator:
        from jsonschema import Draft202012Validator  # noqa: PLC0415 - it takes longer to import than `--help` takes

        return Draft202012Validator(_whole(self.schema))


def encode(value: object) -> str:
    """Write a value as the text of a flag or an environment variable: lists with commas, booleans as JSON has them."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def text(expected: str, pattern: str = "", convert: Callable[[str], object] = str, longest: int | None = None) -> Kind:
    """Make the kind of a text.

    Args:
        expected: what a text has to be, for errors.
        pattern: of the whole text, without alternatives at the top: for RE2, ECMAScript and Python alike; empty: any.
        convert: makes what the code uses of it.
        longest: in characters.
    """
    schema: dict[str, Any] = {"type": "string", "description": expected}
    if pattern:
        schema["pattern"] = f"^{pattern}$"
    if longest:
        schema["maxLength"] = longest
    return Kind(schema, convert)


def choice(values: Iterable[Enum], *, none: str = "", ignores_case: bool = False) -> Kind:
    """Make the kind of one of the values of an enumeration.

    Args:
        values: the enumeration, or some of it.
        none: one more choice, before the others, which is None to the code.
        ignores_case: whether flags and environment variables may be written in upper case.
    """
    made = {none: None} if none else {}
    allowed: dict[str, Enum | None] = made | {str(each.value): each for each in values}
    expected = f"one of {', '.join(allowed)}"

    def convert(value: str) -> object:
        if value not in allowed:
            raise SettingError(f"{saw(value)}, expected {expected}")
        return allowed[value]

    schema = {"type": "string", "enum": list(allowed), "description": expected}
    return Kind(schema, convert, str.lower) if ignores_case else Kind(schema, convert)


def boolean() -> Kind:
    """Make the kind of true and false."""
    return Kind({"type": "boolean"}, decode=lambda text: {"true": True, "false": False}.get(text.lower(), text))


def names(expected: str, pattern: str, longest: int, most: int) -> Kind:
    """Make the kind of a list of names, with commas between them in text; the code gets a tuple without repetitions.

    Args:
        expected: what a name has to be, for errors.
        pattern: of a name.
        longest: in characters, of a name.
        most: how many there may be.
    """
    item = {"type": "string", "maxLength": longest, "pattern": f"^{pattern}$", "description": expected}
    schema = {"type": "array", "maxItems": most, "items": item, "description": f"at most {most} names"}
    return Kind(
        schema,
        convert=lambda value: tuple(dict.fromkeys(value)),
        decode=lambda text: [name for part in text.split(",") if (name := part.strip())],
    )


def _whole(schema: Any) -> Any:
    """End patterns as Python has to: `$` would let a line end follow."""
    if not isinstance(schema, dict):
        return schema
    made = {key: _whole(value) for key, value in schema.items()}
    return made | {"pattern": made["pattern"].removesuffix("$") + r"\Z"} if "pattern" in made else made


def _flaws(error: ValidationError) -> Iterator[Flaw]:
    place = tuple(error.absolute_path)
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    if error.validator == "additionalProperties" and isinstance(error.instance, dict) and "properties" in schema:
        allowed = tuple(schema["properties"])
        for name in error.instance.keys() - schema["properties"].keys():
            yield Flaw(place, "", str(name), allowed)
        return
    if error.validator == "type" or "description" not in schema:
        types = schema.get("type", ())
        expected = " or ".join(TYPES[each] for each in ([types] if isinstance(types, str) else types)) or error.message
    else:
        expected = schema["description"]
    yield Flaw(place, f"{saw(error.instance)}, expected {expected}")


def saw(value: object) -> str:
    """Begin a message with what was seen."""
    return "saw an empty value" if value == "" else f"saw {value!r:.80}"
