"""Our entry goes into any conflist and comes out again; every byte of others stays as it was (F10, F12)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer.cniconfig import conflist
from installer.cniconfig.netconf import InvalidConfigError
from plugin import jsontext
from tests.cniconfig import generated
from tests.cniconfig.examples import ENTRY, LISTS
from tests.cniconfig.generated import Pairs

pytestmark = pytest.mark.pure

realistic = pytest.mark.parametrize("content", LISTS.values(), ids=LISTS)

OURS = [Pairs(ENTRY.items()), Pairs([("type", "istio-cni")]), Pairs([*ENTRY.items(), ("cniVersion", "1.1.0")])]
with_ours = generated.lists(generated.plugins | st.sampled_from(OURS))


def plugin_texts(content: bytes) -> list[str]:
    """The plugins of a conflist that are not ours, each as it is written."""
    text, array = parts(content)
    found = jsontext.elements(text, array.start)
    return [text[each.start : each.end] for each in found if each.value["type"] != "istio-cni"]


def parts(content: bytes) -> tuple[str, jsontext.Member]:
    text = content.decode("utf-8", "surrogateescape")
    return text, [each for each in jsontext.members(text) if each.key == "plugins"][-1]


def around(content: bytes) -> tuple[str, str]:
    """All that stands before and after the array of plugins."""
    text, array = parts(content)
    return text[: array.start], text[array.end :]


def values(content: bytes) -> Any:
    return json.loads(content.decode("utf-8", "surrogateescape"))


def check_splice_and_remove(content: bytes) -> None:
    spliced = conflist.splice(content, ENTRY)

    added = len(spliced) - len(content)
    at = next(i for i, (old, new) in enumerate(zip(content + b"\0", spliced, strict=False)) if old != new)
    assert spliced[:at] + spliced[at + added :] == content, "something was put in, nothing else changed"
    assert values(spliced) == {**values(content), "plugins": [*values(content)["plugins"], ENTRY]}
    assert conflist.is_spliced(spliced, ENTRY)
    assert not conflist.is_spliced(content, ENTRY)
    assert conflist.splice(spliced, ENTRY) == spliced
    assert conflist.remove(spliced) == content
    assert conflist.remove(content) == content


@realistic
def test_splice_then_remove_restores_realistic_conflists(content: bytes) -> None:
    check_splice_and_remove(content)


@given(generated.lists())
def test_splice_then_remove_restores_any_conflist(content: bytes) -> None:
    check_splice_and_remove(content)


@given(with_ours)
def test_splice_moves_our_entry_to_the_end_once_and_keeps_foreign_text(content: bytes) -> None:
    spliced = conflist.splice(content, ENTRY)

    assert values(spliced)["plugins"][-1] == ENTRY
    assert [each["type"] for each in values(spliced)["plugins"]].count("istio-cni") == 1
    assert plugin_texts(spliced) == plugin_texts(content)
    assert around(spliced) == around(content)
    assert conflist.splice(spliced, ENTRY) == spliced


@given(with_ours)
def test_remove_deletes_every_entry_of_ours_and_keeps_foreign_text(content: bytes) -> None:
    removed = conflist.remove(content)

    assert plugin_texts(removed) == plugin_texts(content)
    assert around(removed) == around(content)
    assert len(values(removed)["plugins"]) == len(plugin_texts(content))


SHORT_ENTRY = {"k": [1], "type": "istio-cni"}
STYLES = {
    "compact": ('{"name":"x","plugins":[{"type":"a"}]}', ',{"k":[1],"type":"istio-cni"}'),
    "one line": ('{"name": "x", "plugins": [{"type": "a"}]}', ', {"k": [1], "type": "istio-cni"}'),
    "a line each, CRLF": (
        '{"name":"x","plugins":[\r\n {"type":"a"}\r\n]}',
        ',\r\n {"k":[1],"type":"istio-cni"}',
    ),
    "tabs, CRLF": (
        '{"name":"x","plugins":[\r\n\t{\r\n\t\t"type": "a"\r\n\t}\r\n]}',
        ',\r\n\t{\r\n\t\t"k": [\r\n\t\t\t1\r\n\t\t],\r\n\t\t"type": "istio-cni"\r\n\t}',
    ),
    "hugging brackets": (
        '{"name": "x", "plugins": [{\n   "type": "a"\n}]}',
        ', {\n   "k": [\n      1\n   ],\n   "type": "istio-cni"\n}',
    ),
}


@pytest.mark.parametrize(("content", "written"), STYLES.values(), ids=STYLES)
def test_the_entry_is_written_in_the_style_of_the_file(content: str, written: str) -> None:
    after = content.index("}") + 1
    expected = content[:after] + written + content[after:]
    assert conflist.splice(content.encode(), SHORT_ENTRY) == expected.encode()


@pytest.mark.parametrize(
    ("plugins", "left"),
    [
        ('[ {"type":"a"}\t,\n{"type":"istio-cni"} ]', '[ {"type":"a"}\t ]'),
        ('[ {"type":"istio-cni"} , {"type":"a"} ]', '[ {"type":"a"} ]'),
        ('[{"type":"a"} , {"type":"istio-cni"}\n,\t{"type":"b"}]', '[{"type":"a"} \n,\t{"type":"b"}]'),
    ],
)
def test_removed_entry_takes_one_comma_and_keeps_foreign_whitespace(plugins: str, left: str) -> None:
    around = '{"name":"x","plugins":%s}'
    assert conflist.remove((around % plugins).encode()) == (around % left).encode()


def test_entry_that_differs_only_in_json_type_is_repaired() -> None:
    one, true = {"type": "istio-cni", "v": 1}, {"type": "istio-cni", "v": True}
    spliced = conflist.splice(b'{"name":"x","plugins":[{"type":"a"}]}', one)

    assert not conflist.is_spliced(spliced, true)
    assert values(conflist.splice(spliced, true))["plugins"][-1]["v"] is True


def test_type_key_is_matched_as_in_go() -> None:
    assert conflist.has_entry(b'{"name":"x","plugins":[{"type":"a"},{"Type":"istio-cni"}]}')
    assert not conflist.has_entry(b'{"name":"x","plugins":[{"type":"a"},{"type":"b","Type":"istio-cni"}]}')


def test_an_entry_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="saw type 'other', expected 'istio-cni'"):
        conflist.splice(LISTS["calico"], {"type": "other"})


@pytest.mark.usefixtures("usual_recursion_limit")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "saw an empty file"),
        (b" \n", "saw an empty file"),
        (b'{"name":"x","plug', "line 1, column 13: saw '\"plug', expected JSON"),
        (b'{"name":"x"}\n{', "line 2, column 1: saw '{', expected nothing more"),
        (b"[]", r"saw \[\], expected a JSON object"),
        (b'{"plugins":[{"type":"a"}]}', "name: saw none, expected a string that is not empty"),
        (b'{"name":"","plugins":[{"type":"a"}]}', 'name: saw ""'),
        (b'{"name":7,"plugins":[{"type":"a"}]}', "name: saw 7"),
        (b'{"name":"x","cniVersion":1,"plugins":[{"type":"a"}]}', "cniVersion: saw 1, expected a string"),
        (b'{"name":"x"}', "plugins: saw none, expected an array with at least one plugin"),
        (b'{"name":"x","plugins":{}}', "plugins: saw {}"),
        (b'{"name":"x","plugins":[]}', r"plugins: saw \[\]"),
        (b'{"name":"x","plugins":[{"type":"a"}],"plugins":null}', "plugins: saw null"),
        (b'{"name":"x","plugins":["a"]}', r'plugins\[0\]: saw "a", expected an object'),
        (b'{"name":"x","plugins":[{"type":"a"},{}]}', r"plugins\[1\].type: saw none"),
        (b'{"name":"x","plugins":[{"type":"a","TYPE":1}]}', r"plugins\[0\].type: saw 1"),
        (b'\xef\xbb\xbf{"name":"x","plugins":[{"type":"a"}]}', "line 1, column 1"),
        (b'{"name":"x","plugins":[{"type":"a"}],\xff"v":1}', "expected property name"),
        (b'{"name":"x","plugins":[{"type":"a"}],"v":NaN}', "NaN is none"),
        (b'{"name":"x","plugins":[{"type":"a"}],"v":1e400}', "1e400 is beyond a 64-bit float"),
        (b'{"name":"x","plugins":[{"type":"a"}],"v":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested less deeply"),
    ],
)
def test_invalid_conflist_is_rejected_with_seen_and_expected(content: bytes, message: str) -> None:
    for operation in (
        conflist.read_list,
        conflist.remove,
        conflist.has_entry,
        lambda content: conflist.splice(content, ENTRY),
        lambda content: conflist.is_spliced(content, ENTRY),
    ):
        with pytest.raises(InvalidConfigError, match=message):
            operation(content)
