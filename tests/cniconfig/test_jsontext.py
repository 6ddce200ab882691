"""JSON with positions: as strict as Go, nothing changed on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin import jsontext
from plugin.jsontext import JsonError
from tests.cniconfig import generated
from tests.cniconfig.generated import Pairs

pytestmark = pytest.mark.pure

ACCEPTED = [
    '"\\ud800"',
    '"\\\\u+123"',
    '"\x7f\u2028"',
    "-0",
    "1E-400",
    "9" * 300,
    ' {"a" : [ ] }\r\n',
    "[" * 900 + "]" * 900,
]
REFUSED = [
    "",
    "NaN",
    "-Infinity",
    "[Infinity]",
    "01",
    "+1",
    ".5",
    "1.",
    "1e",
    "0x1",
    "9" * 400,
    "9" * 5000,
    "1e999",
    "tru",
    "'a'",
    '"\x01"',
    '"\t"',
    '"\\x"',
    '"\\u12"',
    '"\\u+123"',
    '"\\u 123"',
    '"\\u1_23"',
    '"\\\\\\u+123"',
    "1\u0661",
    "1.\u0661",
    "\ufeff1",
    "\xa01",
    "[1,]",
    "[,]",
    '{"a":1,}',
    '{"a"}',
    "{1:2}",
    '"a',
    "[[",
    "1 2",
    "{} //",
    "1\0",
    "[" * 9999 + "]" * 9999,
]


@given(generated.values.flatmap(generated.spelled))
def test_parser_agrees_with_the_json_module(text: str) -> None:
    assert jsontext.loads(text) == json.loads(text)


@given(st.lists(st.tuples(st.text(), generated.values)).map(Pairs).flatmap(generated.spelled))
def test_members_have_the_positions_of_their_values(text: str) -> None:
    found = jsontext.members(text)

    assert [each.key for each in found] == [key for key, _ in json.loads(text, object_pairs_hook=Pairs)]
    assert {each.key: each.value for each in found} == json.loads(text)
    assert all(json.loads(text[each.start : each.end]) == each.value for each in found)
    assert all(text[each.start : each.end].strip() == text[each.start : each.end] for each in found)
    assert [*jsontext.load_object(text).items()] == [*{each.key: each for each in found}.items()]


@given(st.lists(generated.values).flatmap(generated.spelled))
def test_elements_have_their_positions(text: str) -> None:
    found = jsontext.elements(text)

    assert [each.value for each in found] == json.loads(text)
    assert all(json.loads(text[each.start : each.end]) == each.value for each in found)


@pytest.mark.parametrize("text", ACCEPTED, ids=ascii)
def test_json_accepted_by_go_is_accepted(text: str) -> None:
    jsontext.loads(text)
    jsontext.load_object(f'{{"a": {text} }}')


@pytest.mark.usefixtures("usual_recursion_limit")
@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text[:20]))
def test_json_rejected_by_go_is_rejected(text: str) -> None:
    for read, written in ((jsontext.loads, text), (jsontext.load_object, f'{{"a":{text}}}')):
        with pytest.raises(JsonError, match=r"^line 1, column \d+: saw .*, expected "):
            read(written)


def test_python_scanner_rejects_the_same_json() -> None:
    """The frozen client has json's Python scanner alone, which by itself takes more than JSON."""
    program = (
        "import sys; sys.modules['_json'] = None\n"
        "import ast, json.scanner; from plugin import jsontext\n"
        "assert json.scanner.c_make_scanner is None\n"
        "accepted, refused = ast.literal_eval(sys.stdin.read())\n"
        "for text in accepted: jsontext.loads(text)\n"
        "for text in refused:\n"
        "    try: jsontext.loads(text)\n"
        "    except jsontext.JsonError: continue\n"
        "    sys.exit(f'accepted: {text[:50]!a}')\n"
    )
    # Python's own scanner goes three calls a level, and so less deep.
    cases = ascii(([text for text in ACCEPTED if len(text) < 900], REFUSED))
    run = subprocess.run([sys.executable, "-c", program], input=cases, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "a": 1,\n  }', "line 3, column 3: saw '}', expected property name enclosed in double quotes"),
        ('{"a": 1 "b"}', "line 1, column 9: saw '\"b\"}', expected ',' delimiter"),
        ("[1", "line 1, column 3: saw the end, expected ',' delimiter"),
        ("", "line 1, column 1: saw the end, expected a value"),
    ],
)
def test_errors_have_position_seen_and_expected(text: str, message: str) -> None:
    with pytest.raises(JsonError) as caught:
        jsontext.loads(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (jsontext.members, "[]"),
        (jsontext.members, '{"a" 1}'),
        (jsontext.members, '{"a":1,}'),
        (jsontext.members, "{1:1}"),
        (jsontext.members, '{"a":1'),
        (jsontext.load_object, "[]"),
        (jsontext.load_object, '{"a":1} 2'),
        (jsontext.load_object, '{"a":1}}'),
        (jsontext.elements, "{}"),
        (jsontext.elements, "[1 2]"),
        (jsontext.elements, "[1,]"),
    ],
)
def test_a_walk_through_what_is_not_there_is_refused(read: Any, text: str) -> None:
    with pytest.raises(JsonError):
        read(text)


@given(st.lists(st.sampled_from(["\\", "u", "0041", "12", "x", '"', "é", "\n"])).map("".join))
def test_an_escape_is_valid_if_it_has_four_digits(text: str) -> None:
    written = '"' + text.replace('"', "").replace("\n", "") + '"'
    try:
        json.loads(written)
    except ValueError:
        for read, whole in ((jsontext.loads, written), (jsontext.load_object, f'{{"a":{written}}}')):
            with pytest.raises(JsonError):
                read(whole)
    else:
        assert jsontext.loads(written) == json.loads(written)


def test_last_duplicate_key_wins_and_escaped_keys_match() -> None:
    text = '{"a": 1, "\\u0061" :  2.50 }'
    found = jsontext.load_object(text)
    assert {key: text[each.start : each.end] for key, each in found.items()} == {"a": "2.50"}
    assert jsontext.load_object("{}") == {}
