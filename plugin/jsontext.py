"""JSON text with positions, so that foreign text can be passed on and preserved character by character (F12).

As strict as Go's encoding/json, with which the runtimes parse the same text: no NaN, no number beyond a float64, no
control character in a string, no byte order mark, nothing after the value; the last of equal keys wins. Lightweight on
purpose: the frozen client imports this too, where `json` has no C scanner and its Python one accepts more than JSON.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, TypeVar

    Item = TypeVar("Item", "Member", "Element")

SPACE = " \t\r\n"

_SPACES = re.compile(f"[{SPACE}]*")
# Backslashes occur only in strings. Possessive: in a text of a megabyte there is no way back.
_VALID_ESCAPES = re.compile(r"(?:[^\\]++|\\(?:[^u]|u[0-9A-Fa-f]{4}))*+")


class JsonError(ValueError):
    """Text that is not JSON: the position, what was seen and what was expected."""

    def __init__(self, text: str, position: int, expected: str) -> None:
        line = text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        seen = ascii(text[position : position + 20]) if position < len(text) else "the end"
        super().__init__(f"line {line}, column {column}: saw {seen}, expected {expected}")


class Member(NamedTuple):
    """A member of an object; `text[start:end]` is its value as written."""

    key: str
    value: Any
    start: int
    end: int


class Element(NamedTuple):
    """An element of an array; `text[start:end]` is its text."""

    value: Any
    start: int
    end: int


def loads(text: str) -> Any:
    """Read one JSON value that fills the whole text.

    Raises:
        JsonError: if it is not JSON, or nested so deep that Python cannot read it (about 1000 levels).
    """
    value, end = _decode(text, skip_space(text, 0))
    _check_whole(text, end)
    return value


def load_object(text: str) -> dict[str, Member]:
    """Read one JSON object that fills the whole text, its members by key; errors as for `loads`."""
    found, end = _sequence(text, 0, ("{", "}"), _member)
    _check_whole(text, end)
    return {each.key: each for each in found}


def members(text: str, start: int = 0) -> list[Member]:
    """Read the object at `start`, in the order of the text, equal keys included.

    Raises:
        JsonError: if there is no object.
    """
    return _sequence(text, start, ("{", "}"), _member)[0]


def elements(text: str, start: int = 0) -> list[Element]:
    """Read the array at `start`.

    Raises:
        JsonError: if there is no array.
    """
    return _sequence(text, start, ("[", "]"), _element)[0]


def skip_space(text: str, position: int) -> int:
    """Return the position of the first character from `position` on that is not JSON whitespace."""
    found = _SPACES.match(text, position)
    return found.end() if found else position


def _check_whole(text: str, end: int) -> None:
    """Check what the decoder lets pass, in a text whose value ends there."""
    if (rest := skip_space(text, end)) < len(text):
        raise JsonError(text, rest, "nothing more")
    if (valid := _VALID_ESCAPES.match(text)) and valid.end() < len(text):
        raise JsonError(text, valid.end(), "four hexadecimal digits after \\u")


def _sequence(
    text: str, start: int, brackets: tuple[str, str], read: Callable[[str, int], Item]
) -> tuple[list[Item], int]:
    """Read an object or an array; return its items, and the position behind it."""
    opening, closing = brackets
    position = skip_space(text, _expect(text, start, opening))
    items: list[Item] = []
    while not text.startswith(closing, position):
        if items:
            position = _expect(text, position, ",", f"',' or '{closing}'")
        items.append(read(text, skip_space(text, position)))
        position = skip_space(text, items[-1].end)
    return items, position + 1


def _member(text: str, start: int) -> Member:
    if not text.startswith('"', start):
        raise JsonError(text, start, "a key in double quotes")
    key, end = _decode(text, start)
    value = _element(text, skip_space(text, _expect(text, end, ":")))
    return Member(key, *value)


def _element(text: str, start: int) -> Element:
    value, end = _decode(text, start)
    return Element(value, start, end)


def _expect(text: str, position: int, character: str, expected: str = "") -> int:
    position = skip_space(text, position)
    if not text.startswith(character, position):
        raise JsonError(text, position, expected or f"'{character}'")
    return position + 1


def _decode(text: str, start: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise JsonError(text, error.pos, _expected(error.msg)) from error
    except RecursionError as error:
        raise JsonError(text, start, "a value that is nested less deeply") from error
    except ValueError as error:  # from a number: the decoder does not report its position
        raise JsonError(text, start, f"JSON's numbers alone, but {error}") from error


def _expected(message: str) -> str:
    if message.startswith("Expecting "):
        return message.removeprefix("Expecting ").replace("value", "a value")
    return f"JSON ({message.removesuffix(' at').lower()})"


def _integer(digits: str) -> int:
    _float(digits)
    return int(digits)


def _float(digits: str) -> float:
    if not digits.isascii():  # json's Python scanner accepts the digits of every script
        raise ValueError(f"{digits:.40} is written in other digits")
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits:.40} is beyond a 64-bit float")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is none")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_no_constant)
