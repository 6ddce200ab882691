"""The files that are made from the declarations: what is committed is what is made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from installer.config.settings import declarations
from installer.config.values import chart_values, resource_values
from tests.generate import tables
from tests.generate.files import CHART, ROOT, generate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.pure

MADE = generate()


@pytest.mark.parametrize("path", MADE, ids=lambda path: str(path.relative_to(ROOT)))
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text() == MADE[path], "run `make generate`"


def test_each_value_of_the_chart_has_its_default_in_one_file() -> None:
    files = [CHART / "values.yaml", CHART / "platforms" / "default.yaml"]
    own, of_platform = [yaml.safe_load(MADE[path])["cni"] for path in files]
    assert not own.keys() & of_platform.keys(), "a preset could not change what values.yaml sets"
    assert own | of_platform == {key: each.default for key, each in chart_values().items()}


def test_each_setting_has_a_row_and_each_value_a_sentence() -> None:
    rows = tables.settings().splitlines()[2:]
    assert [re.findall("`(.*?)`", row)[1] for row in rows] == [each.variable for each in declarations()]
    assert {row.count("|") for row in rows} == {6}
    values = [each for group in chart_values().values() for each in (group, *group.values)]
    assert [each.key for each in values if not each.doc.endswith(".") or "|" in each.doc] == []


def test_the_template_that_takes_over_a_tag_checks_it_by_its_pattern() -> None:
    pattern = resource_values()["tag"].kind.schema["pattern"]
    assert f'regexMatch "{pattern}"' in (CHART / "templates" / "_values.tpl").read_text()
