"""The README says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from installer.config.settings import table
from plugin.cni import Code

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_settings_is_that_of_their_declarations() -> None:
    shown = README.partition("<!-- settings -->\n")[2].partition("<!-- /settings -->")[0]
    assert shown == table(), (
        "renew it: python -c 'from installer.config.settings import table; print(table(), end=\"\")'"
    )


def test_every_error_code_is_explained() -> None:
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)} == {int(code) for code in Code}


def test_every_command_of_the_makefile_that_it_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z0-9]+)", README)) - {"git"} <= targets
