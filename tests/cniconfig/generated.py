"""Generated configurations: any JSON, in any spelling that JSON allows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

Draw = Any  # hypothesis' draw function


class Pairs(list[tuple[str, Any]]):
    """An object's members in order, equal keys included."""


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(st.text(max_size=4), inner), max_size=3).map(Pairs),
    max_leaves=6,
)
types = st.sampled_from(["bridge", "calico", "portmap", "istio-cni-2", "ISTIO-CNI", "é"])


@st.composite
def spelled(draw: Draw, value: Any) -> str:
    """Write a value with any blanks, escapes and number forms."""
    blanks = draw(st.sampled_from(["", " ", "\n  ", "\r\n\t", "any"]))
    blank: Callable[[], str] = lambda: draw(st.text(" \t\r\n", max_size=2)) if blanks == "any" else blanks  # noqa: E731

    def write(value: Any) -> str:
        if isinstance(value, Pairs):
            members = (f"{write(key)}{blank()}:{blank()}{write(each)}" for key, each in value)
            return "{" + blank() + f"{blank()},{blank()}".join(members) + blank() + "}"
        if isinstance(value, list):
            return "[" + blank() + f"{blank()},{blank()}".join(write(each) for each in value) + blank() + "]"
        return json.dumps(value, ensure_ascii=draw(st.booleans()))

    return blank() + write(value) + blank()


def _plugin(type_: str, others: list[tuple[str, Any]]) -> Pairs:
    return Pairs([*(pair for pair in others if pair[0].casefold() != "type"), ("type", type_)])


members = st.lists(st.tuples(st.text(max_size=5), values), max_size=3)
plugins = st.builds(_plugin, types, members)


@st.composite
def lists(draw: Draw, element: st.SearchStrategy[Any] = plugins) -> bytes:
    """A conflist that a runtime takes, its keys in any order and some of them twice."""
    found = Pairs(draw(members))
    found += draw(st.sampled_from([[], [("plugins", [])], [("name", None)]]))
    rest = [("name", draw(st.text(min_size=1))), ("plugins", draw(st.lists(element, min_size=1, max_size=4)))]
    if draw(st.booleans()):
        rest.append(("cniVersion", draw(st.sampled_from(["0.3.1", "1.0.0", "1.1.0"]))))
    found = Pairs(pair for pair in found if pair[0] != "cniVersion")
    found += draw(st.permutations(rest))
    return str(draw(spelled(found))).encode()


@st.composite
def confs(draw: Draw) -> bytes:
    """A single plugin's configuration."""
    found = Pairs(pair for pair in draw(members) if pair[0].casefold() not in ("name", "type", "cniversion", "plugins"))
    found += [("name", draw(st.text(min_size=1))), ("type", draw(types))]
    if draw(st.booleans()):
        found.append(("cniVersion", draw(st.sampled_from(["", "0.2.0", "1.0.0", None]))))
    return str(draw(spelled(Pairs(draw(st.permutations(found)))))).encode()
