"""The documentation builds without a warning, and what code and docs refer to is there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import DOCS, PAGES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.pure

DEVELOPMENT = (DOCS / "development.md").read_text()
FOLDERS = ("installer", "plugin", "charts", "tests")
READ = {".py", ".c", ".yaml", ".tpl", ".md"}


def sources() -> list[Path]:
    """List the files that may refer to the documentation."""
    below = [each for folder in FOLDERS for each in (ROOT / folder).rglob("*") if each.suffix in READ]
    return [*PAGES, *below]


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
def test_each_reference_to_a_decision_or_fault_resolves(letter: str, page: str, anchor: str) -> None:
    there = {each.upper() for each in re.findall(anchor, (DOCS / page).read_text())}
    named = referred(letter)
    assert there
    assert {name: where for name, where in named.items() if name not in there} == {}


def test_each_fault_names_tests() -> None:
    rows = re.findall(r'^\| <a id="(f\d+)"></a>.*\| (.*) \|$', (DOCS / "failure-modes.md").read_text(), re.MULTILINE)
    assert len(rows) > 40
    without = [
        fault
        for fault, tests in rows
        if not (names := re.findall(r"`(tests/[\w./]+/test_\w+\.py)`", tests))
        or any("def test_" not in (ROOT / name).read_text() for name in names)
    ]
    assert without == []


def test_each_named_file_exists() -> None:
    named = {
        (str(page.relative_to(ROOT)), name)
        for page in PAGES
        for name in re.findall(rf"`((?:{'|'.join((*FOLDERS, 'docs'))})/[\w./-]+)`", page.read_text())
    }
    assert named
    assert sorted((page, name) for page, name in named if not (ROOT / name).exists()) == []


def test_each_link_outside_the_site_resolves() -> None:
    dead = []
    for page in (each for each in PAGES if each.parent != DOCS):
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                dead.append((str(page.relative_to(ROOT)), target))
    assert dead == []


def anchors(page: Path) -> set[str]:
    """Make the anchors of a page's headings, as GitHub and mkdocs do."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).strip().replace(" ", "-") for each in headings}


def test_the_documented_layers_are_import_linters() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = next(
        each["layers"] for each in contracts if each["type"] == "layers" and each.get("containers") == ["installer"]
    )
    table = DEVELOPMENT.partition("| layer | rooms |")[2].partition("\n\n")[0]
    shown = [re.findall(r"`installer/(\w+)(?:\.py)?`", line) for line in table.splitlines()]
    expected = [sorted(re.split(r" [:|] ", each)) for each in held if each != "__main__"]
    assert [sorted(each) for each in shown if each] == expected


def test_each_room_is_explained() -> None:
    rooms = {each.name for each in (ROOT / "installer").iterdir() if (each / "__init__.py").is_file()}
    table = DEVELOPMENT.partition("| room | what is in it |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`installer/(\w+)`", table)) == rooms


def test_each_test_folder_mirrors_a_room_or_is_explained() -> None:
    folders = {each.name for each in (ROOT / "tests").iterdir() if (each / "__init__.py").is_file()}
    rooms = {each.name for each in (ROOT / "installer").iterdir() if each.is_dir()} | {"plugin"}
    explained = set(re.findall(r"`tests/(\w+)`", DEVELOPMENT))
    assert folders - rooms - explained == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_each_page_is_in_the_navigation() -> None:
    named = re.findall(r"^ +- [^:]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in DOCS.glob("*.md"))


def test_the_site_builds_without_dead_links(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={tmp_path / 'site'}"]
    environment = {"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "site" / "architecture.html").is_file()
