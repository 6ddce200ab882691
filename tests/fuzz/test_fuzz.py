"""The fuzz target finds nothing: on its corpus, each time; on new inputs, for a while (F32)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import CORPUS, readable
from tests.fuzz.grammar import StrangeLine, values
from tests.fuzz.target import once

pytestmark = pytest.mark.pure

TREE = Path(__file__).parents[2]
SECONDS = 10  # `make fuzz` takes ten minutes
LONGEST = 240  # seconds until a mistake is found
AT_LEAST = 1_500  # inputs in that time, on the slowest machine


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_former_findings_stay_fixed(path: Path) -> None:
    once(path.read_bytes())


def fuzz(tree: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz", f"--seconds={seconds}"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS * 18)
def test_new_inputs_find_no_fault() -> None:
    done = fuzz(TREE, SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    inputs = re.search(r"fuzz: (\d+) inputs", done.stdout)
    assert inputs, done.stdout
    assert int(inputs[1]) > AT_LEAST


@pytest.mark.slow
@pytest.mark.timeout(LONGEST + 60)
def test_planted_mistake_is_found_and_printed(tmp_path: Path) -> None:
    """An interface's name may hold a newline here; mostly it takes some seconds until a rule does."""
    shutil.copytree(TREE / "plugin", tmp_path / "plugin")
    shutil.copytree(TREE / "tests" / "fuzz", tmp_path / "tests" / "fuzz")
    shutil.copy(TREE / "tests" / "__init__.py", tmp_path / "tests")
    mistaken = tmp_path / "plugin" / "values.py"
    right = mistaken.read_text()
    mistaken.write_text(right.replace("[A-Za-z0-9_.-]{0,14}", r"[A-Za-z0-9_.\n-]{0,14}"))
    assert mistaken.read_text() != right
    done = fuzz(tmp_path, LONGEST)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "StrangeLine" in done.stdout
    kept = re.search(r"found by this input, kept as (\S+)", done.stdout)
    assert kept, done.stdout
    assert re.search(rb"Interfaces|reroute-virtual", Path(kept[1]).read_bytes())
    assert Path(kept[1]).is_relative_to(tmp_path)


def test_an_input_is_shown_escaped() -> None:
    assert readable(b"annotation a=\x1b[2J\xff\nuid=1") == r"annotation a=\x1b[2J\xff" + "\nuid=1"


@pytest.mark.parametrize(
    "line",
    [
        '\t\tiifname "eth0" accept; drop" return',
        "\t\ttcp dport 0 return",
        "\t\ttcp dport 080 return",
        "\t\ttcp dport 65536 return",
        "\t\tip daddr 10.0.0.1/8 return",
        "\t\tip daddr 10.0.0.0/33 return",
        '\t\toifname "0eth" return',
        '\t\toifname "abcdefghijklmnop" return',
        "\t\tjump OTHERS",
        "\t\tmeta skuid root return",
        "\t\ttcp dport \uff18\uff10 return",
        "flush ruleset",
        "\t\ttcp dport 80 return # 443",
    ],
)
def test_the_grammar_knows_what_no_rule_of_nft_may_hold(line: str) -> None:
    with pytest.raises(StrangeLine, match=re.escape(line)):
        values(line, is_nft=True)


@pytest.mark.parametrize(
    "line",
    [
        "-A ISTIO_OUTPUT -d 10.0.0.1/8 -j RETURN",
        "-A ISTIO_OUTPUT -p tcp -m tcp --dport 80:90 -j RETURN",
        "-A ISTIO_OUTPUT -p tcp -m tcp --dport 080 -j RETURN",
        "-A ISTIO_OUTPUT -o eth0+ -j RETURN",
        "-A ISTIO_OUTPUT -o eth0 -j ACCEPT -j RETURN",
        "-A FORWARD -j ACCEPT",
        "-F OUTPUT",
        ":OUTPUT DROP [0:0]",
        "*filter",
        "-A ISTIO_OUTPUT -j OTHERS",
        "-A ISTIO_OUTPUT -m owner --uid-owner root -j RETURN",
    ],
)
def test_the_grammar_knows_what_no_rule_of_iptables_may_hold(line: str) -> None:
    with pytest.raises(StrangeLine, match=re.escape(line)):
        values(line, is_nft=False)


def test_the_grammar_finds_what_a_pod_may_have_chosen() -> None:
    line = "-A ISTIO_OUTPUT -d 10.0.0.0/8 -o eth0 -p tcp -m tcp --dport 80 -m owner ! --uid-owner 1337 -j RETURN"
    assert values(line, is_nft=False) == {("range", "10.0.0.0/8"), ("name", "eth0"), ("port", "80"), ("id", "1337")}
