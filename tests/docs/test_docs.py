"""The documentation builds without a warning, and what code and docs refer to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FOLDERS = ("installer", "plugin", "charts", "tests")
READ = {".py", ".c", ".yaml", ".tpl", ".md"}


def sources() -> list[Path]:
    """List the files that may refer to the documentation."""
    below = [each for folder in FOLDERS for each in (ROOT / folder).rglob("*") if each.suffix in READ]
    return [ROOT / "README.md", *DOCS.glob("*.md"), *below]


def referred(letter: str) -> dict[str, str]:
    """Find references such as D7.

    Returns:
        For each the first file that has it.
    """
    found: dict[str, str] = {}
    for path in sources():
        for name in re.findall(rf"(?<![\w#\"'/-]){letter}[1-9][0-9]?(?!\w)", path.read_text()):
            found.setdefault(name, str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("letter", "page", "anchor"),
    [("D", "architecture.md", r"\{#(d\d+)\}"), ("F", "failure-modes.md", r'<a id="(f\d+)"></a>')],
)
def test_each_decision_and_fault_that_is_referred_to_has_its_place(letter: str, page: str, anchor: str) -> None:
    there = {each.upper() for each in re.findall(anchor, (DOCS / page).read_text())}
    named = referred(letter)
    assert there
    assert {name: where for name, where in named.items() if name not in there} == {}


def test_each_test_that_is_named_is_there() -> None:
    named = {name for page in DOCS.glob("*.md") for name in re.findall(r"`(tests/[\w/]+\.py)", page.read_text())}
    assert named
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_it_builds_and_no_link_is_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={tmp_path / 'site'}"]
    environment = {"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "site" / "architecture.html").is_file()
