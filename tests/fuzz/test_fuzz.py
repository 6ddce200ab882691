"""The fuzz target finds nothing: on its corpus, each time; on new inputs, for a while (F32)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import CORPUS
from tests.fuzz.grammar import strange
from tests.fuzz.target import once

SECONDS = 30
AT_LEAST = 5_000  # inputs in that time, on the slowest machine


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_nothing_comes_of_what_was_found_before(path: Path) -> None:
    once(path.read_bytes())


@pytest.mark.timeout(SECONDS * 6)
def test_nothing_comes_of_new_inputs() -> None:
    command = [sys.executable, "-m", "tests.fuzz", f"--seconds={SECONDS}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    inputs = re.search(r"fuzz: (\d+) inputs", done.stdout)
    assert inputs, done.stdout
    assert int(inputs[1]) > AT_LEAST


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
    ],
)
def test_the_grammar_knows_what_no_rule_may_hold(line: str) -> None:
    try:
        assert strange(line, is_nft=True) == line
    except ValueError:
        return  # of a range that is none
