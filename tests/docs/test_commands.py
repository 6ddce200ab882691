"""Each command in the documentation runs, or says what it needs, and names options, targets and values that exist."""

from __future__ import annotations

import doctest
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from installer.main import main
from tests.docs.pages import CHART_README, PAGES, ROOT, Block, all_blocks, blocks, without_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.pure

NOT_COMMANDS = {"yaml", "json", "mermaid", "text"}
NEEDS = ("a cluster", "a node", "helm", "a registry", "this repository")
MARK = re.compile(rf"# needs ({'|'.join(NEEDS)})")
COMMANDS = (
    "curl",
    "helm",
    "install-cni",
    "istioctl",
    "journalctl",
    "kubectl",
    "make",
    "nsenter",
    "pip",
    "pytest",
    "skopeo",
)
CALL = re.compile(rf"^\s*(\$ )?({'|'.join(COMMANDS)}) ")
SLOWEST = 60.0  # seconds
ALIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

BLOCKS = all_blocks()


def test_a_page_with_an_unmarked_command_is_refused(tmp_path: Path) -> None:
    page = ROOT / "docs" / "index.md"
    assert _problems(Block(str(page), "sh", ("helm install x",)))
    assert _problems(Block(str(page), "", ("make test",)))
    assert _problems(Block(str(page), "text", ("kubectl get pods",)))
    assert _problems(Block(str(page), "console", ("install-cni --help",)))
    assert not _problems(Block(str(page), "sh", ("# needs a cluster", "helm install x")))


@pytest.mark.parametrize("block", BLOCKS, ids=[each.where for each in BLOCKS])
def test_each_command_block_is_run_or_marked(block: Block) -> None:
    assert _problems(block) == []


def test_no_command_hides_in_an_indented_block() -> None:
    found = [
        f"{page.relative_to(ROOT)}: {line.strip()}"
        for page in PAGES
        for line in without_blocks(page).splitlines()
        if line.startswith("    ") and CALL.match(line)
    ]
    assert found == []


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language == "console"], ids=lambda each: each.where)
def test_each_command_prints_the_documented_output(block: Block, tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    for command, shown in _runs(block):
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SLOWEST, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        shown_alike = "\n".join([*shown, ""])
        assert not shown or doctest.OutputChecker().check_output(shown_alike, done.stdout, ALIKE), done.stdout


def test_each_option_of_install_cni_exists() -> None:
    known = dict(_commands(main))
    found = [problem for where, words in _calls("install-cni") for problem in _of_call(where, words, known)]
    assert found == []


def test_each_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for _, words in _calls("make") for word in words[1:2] if re.fullmatch(r"[a-z-]+", word)}
    assert named
    assert sorted(named - targets) == []


def test_each_value_of_the_chart_exists() -> None:
    schema = json.loads((CHART_README.parent / "values.schema.json").read_text())
    found = [
        f"{where}: {word}"
        for where, words in _calls("helm")
        if "charts/istio-cni" in words
        for before, word in itertools.pairwise(words)
        if before == "--set" and not _has(schema, word.partition("=")[0].split("."))
    ]
    assert found == []


def _problems(block: Block) -> list[str]:
    """Say what is wrong with a block: nobody knows whether its commands are run, or they are none."""
    if block.language == "console":
        return [] if block.lines and block.lines[0].startswith("$ ") else [f"{block.where}: no line begins with `$ `"]
    if block.language == "sh":
        first = block.lines[0] if block.lines else ""
        return (
            []
            if MARK.match(first)
            else [f"{block.where}: saw {first!r} first, expected `# needs …` ({', '.join(NEEDS)})"]
        )
    if block.language not in NOT_COMMANDS:
        return [
            f"{block.where}: saw language {block.language!r}, expected console, sh or one of {sorted(NOT_COMMANDS)}"
        ]
    return [f"{block.where}: a command in a block of {block.language}" for line in block.lines if CALL.match(line)]


def _runs(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Go through the commands of a console, each with the lines that follow."""
    command, shown = "", list[str]()
    for line in block.lines:
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line.removeprefix("$ "), []
        else:
            shown.append(line)
    yield command, shown


def _commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*names, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, *names, name)


def _calls(program: str) -> Iterator[tuple[str, list[str]]]:
    """Find the calls of a program in blocks and in the text, each as words."""
    for page in PAGES:
        place = str(page.relative_to(ROOT))
        lines = [line for block in blocks(page) for line in "\n".join(block.lines).replace("\\\n", " ").splitlines()]
        lines += re.findall(r"`([^`\n]+)`", without_blocks(page))
        for line in lines:
            for found in re.finditer(rf"(?:^|[|$]|-- )\s*({program} [^|>#]+)", line):
                yield place, _words(found[1])


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _of_call(where: str, words: list[str], known: Mapping[tuple[str, ...], click.Command]) -> Iterator[str]:
    names = tuple(words[1:3]) if tuple(words[1:3]) in known else tuple(words[1:2])
    if names not in known:
        if words[1].isalpha():
            yield f"{where}: {' '.join(words)}: no such command"
        return
    options = {name for each in known[names].params for name in each.opts} | {"--help", "-h"}
    for word in words[len(names) + 1 :]:
        if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in options:
            yield f"{where}: {' '.join(words)}: {word} is no option of it"


def _has(schema: Mapping[str, Any], path: list[str]) -> bool:
    if not path:
        return True
    properties = schema.get("properties")
    if properties is None:
        return True  # of any name, such as an annotation
    return path[0] in properties and _has(properties[path[0]], path[1:])
