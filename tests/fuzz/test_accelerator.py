"""The accelerator's fuzz target finds nothing: on its corpus, and on some new inputs each time (D13, F32)."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.accelerator import TREE, compiled, fuzz, inputs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.pure, pytest.mark.slow, pytest.mark.timeout(900)]

RUNS = 10_000

MISTAKES = {
    "an answer that is believed to be there": ("if (size > begun->received_size - at - HEAD) break;", ""),
    "an error that passes as a result": ("return head[HEAD] ? UNUSUAL : finish(", "return finish("),
    "a variable that is there twice": ("if (!strncmp(*before, *each, name)) return 0;", "{}"),
    "a path that is too long": ("path.size >= sizeof agent->sun_path || ", ""),
}


def test_new_inputs_find_no_fault(tmp_path: Path) -> None:
    done = fuzz(compiled(tmp_path), RUNS, tmp_path / "found")
    assert done.returncode == 0, done.stderr[-4000:]
    assert inputs(done) >= RUNS


@pytest.mark.parametrize("case", MISTAKES)
def test_planted_mistake_is_found(tmp_path: Path, case: str) -> None:
    for name in ("plugin/frozen", "tests/fuzz"):
        shutil.copytree(TREE / name, tmp_path / name, ignore=shutil.ignore_patterns("corpus", "__pycache__"))
    source = tmp_path / "plugin" / "frozen" / "accelerator.c"
    right, wrong = MISTAKES[case]
    text = source.read_text()
    assert text.count(right) == 1
    source.write_text(text.replace(right, wrong))
    done = fuzz(compiled(tmp_path, tmp_path), RUNS * 8, tmp_path / "found")
    assert done.returncode, done.stderr[-1000:]
    assert "finding: " in done.stderr or "Sanitizer" in done.stderr
