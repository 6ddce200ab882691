"""YAML and JSON of others are read within bounds: aliases, depth, size, keys; what is refused says where and why."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from installer.documents.reader import from_json, from_yaml, read_file
from installer.documents.yaml_size import DEEPEST
from installer.kube.credentials import CredentialsError, credentials
from plugin.pod import ManifestError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.pure

LAUGHS = "\n".join(
    [f"a0: &a0 [{', '.join(['lol'] * 9)}]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))]
)
MERGES = "\n".join(
    ["a0: &a0 {x: y, z: w}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: v}}" for n in range(1, 10))]
)
LONG = f"a: &a {'x' * 1_000_000}\nb: [{', '.join(['*a'] * 1000)}]"
REFUSED = {
    "aliases of aliases": (LAUGHS, "that stand for more, expected at most 4 MiB: write the values out"),
    "merged aliases": (MERGES, "that stand for more"),
    "a long text, often": (LONG, "line 2: saw aliases (*a) that stand for more"),
    "in the second document": (f"a: b\n---\n{LAUGHS}", "that stand for more"),
    "as keys": (LAUGHS.replace("lol", "lol: lol").replace("[", "[{? ").replace("]", " : b}]"), ""),
    "a list inside of itself": ("a: &a [b, *a]", "line 1: saw *a inside the value that it names"),
    "a mapping inside of itself": ("a: &a\n  b: {c: *a}", "line 2: saw *a inside the value that it names"),
    "merged into itself": ("a: &a\n  <<: *a", "line 2: saw *a inside"),
    "flow, deep": ("[" * 20_000 + "]" * 20_000, f"line 1: saw values nested too deep, expected at most {DEEPEST}"),
    "flow, deep and open": ("{a: " * 200_000, "nested too deep"),
    "block, deep": ("- " * 20_000 + "a", "nested too deep"),
    "deep by aliases": (
        "\n".join(["a0: &a0 [b]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 200))]),
        "nested too deep",
    ),
    "a key twice": ("a: b\nc: d\na: e", "line 3: saw the key 'a' again, expected it once (line 1)"),
    "a key twice, inside": ("x:\n- {a: b, 'a': c}", "line 2: saw the key 'a' again"),
    "an alias of nothing": ("a: *b", "line 1: found undefined alias"),
    "a list as key": ("? [a]\n: b", "line 1: saw a list or mapping as a key"),
    "a number without end": (f"a: {'9' * 10_000}", "line 1: saw '99999"),
    "an int of no digit": ('a:\n  b: !!int ""', "line 2: saw '', which cannot be read as int"),
    "an int of a sign": ('!!int "-"', "line 1: saw '-', which cannot be read as int"),
    "a float of nothing": ('a: !!float ""', "cannot be read as float"),
    "a bool of another word": ("a: !!bool maybe", "line 1: saw 'maybe', which cannot be read as bool"),
    "no date": ("a: !!timestamp soon", "line 1: could not determine a constructor for the tag"),
    "a date as key": ("? !!timestamp 2001-01-01\n: a", "line 1: could not determine a constructor"),
    "bytes": ("a: !!binary aGk=", "line 1: could not determine a constructor"),
    "bytes as key": ("? !!binary aGk=\n: a", "line 1: could not determine a constructor"),
    "a set": ("a: !!set {b}", "line 1: could not determine a constructor"),
    "pairs": ("a: !!pairs [b: c]", "line 1: could not determine a constructor"),
    "an object of Python": ("a: !!python/object/apply:os.getpid []", "line 1: could not determine a constructor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_input_beyond_a_bound_is_rejected(case: str) -> None:
    text, said = REFUSED[case]
    with pytest.raises(ManifestError) as error:
        list(from_yaml(text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_aliases_and_depth_of_real_documents_are_fine() -> None:
    text = "base: &b {x: 1, y: [2]}\none: {<<: *b, x: 3}\ntwo: *b\n---\nc: &b d\ne: *b"
    one, two = (each.value for each in from_yaml(text))
    assert one == {"base": {"x": 1, "y": [2]}, "one": {"x": 3, "y": [2]}, "two": {"x": 1, "y": [2]}}
    assert two == {"c": "d", "e": "d"}
    deep = "[" * (DEEPEST - 1) + "a" + "]" * (DEEPEST - 1)
    assert len(list(from_yaml(deep))) == 1


def test_values_are_those_that_the_api_server_reads() -> None:
    (document,) = from_yaml("{a: 2019-11-01, b: 1:30, c: 1:30.5, d: 7, e: 0x10, f: 1.5, yes: g, 1: h}")
    expected = {"a": "2019-11-01", "b": "1:30", "c": "1:30.5", "d": 7, "e": 16, "f": 1.5, "true": "g", "1": "h"}
    assert document.value == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested too deep"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "saw the key 'c' twice in an object"),
        ('{"a": }', "line 1: Expecting value, expected JSON"),
        (f'{{"a": {"9" * 10_000}}}', "Exceeds the limit"),
    ],
)
def test_json_is_bounded_likewise(text: str, said: str) -> None:
    with pytest.raises(ManifestError) as error:
        from_json(text.encode(errors="surrogatepass"))
    assert said in str(error.value)


def test_a_key_twice_among_many_is_found_in_one_pass() -> None:
    keys = ",".join(f'"k{number}":0' for number in range(300_000))
    text = f'{{"kind":"Pod",{keys},"k299999":0}}'
    command = [sys.executable, "-m", "installer", "explain", "-f", "-"]
    ran = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode
    assert "saw the key 'k299999' twice in an object" in ran.stderr


def test_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="more than 1 MiB"):
        read_file("/dev/zero", 1 << 20)
    (tmp_path / "fits").write_bytes(b" " * (1 << 20))
    assert len(read_file(str(tmp_path / "fits"), 1 << 20)) == 1 << 20


def test_a_kubeconfig_is_read_within_the_same_bounds(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(LAUGHS)
    with pytest.raises(CredentialsError, match="that stand for more"):
        credentials(tmp_path / "config")


@pytest.mark.parametrize(
    "command", [("explain",), ("trace", "a/b", "--to=10.0.0.1:80"), ("manifest", "generate", "--helm=/bin/true")]
)
@pytest.mark.parametrize("text", [f"kind:\n  {LAUGHS.replace(chr(10), chr(10) + '  ')}", json.dumps("x")[:1] + "[" * 9])
def test_commands_refuse_it_in_a_line_and_in_little_memory(command: tuple[str, ...], text: str) -> None:
    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    words = [sys.executable, "-m", "installer", *command, "-f", "-"]
    done = subprocess.run(
        words, input=text, capture_output=True, text=True, timeout=60, check=False, preexec_fn=bounded
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: -: ")
    assert done.stderr.count("\n") == 1
