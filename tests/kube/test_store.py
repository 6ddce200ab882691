"""What the controller keeps of what it has heard: never something older, and nothing of what is gone."""

from __future__ import annotations

from typing import Any

import pytest

from installer.kube.store import Cache

pytestmark = pytest.mark.pure


def seen(name: str, version: int, says: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, "says": says}


def cache() -> Cache[str]:
    return Cache(lambda manifest: str(manifest["says"]))


def test_what_is_older_never_replaces_what_is_newer() -> None:
    kept = cache()
    assert kept.hear(seen("a", 10, "new"))
    assert not kept.hear(seen("a", 9, "old"))
    assert kept.items == {"a": "new"}
    assert not kept.hear(seen("a", 9), gone=True)


def test_another_version_that_says_the_same_is_no_change() -> None:
    kept = cache()
    kept.hear(seen("a", 1, "x"))
    assert not kept.hear(seen("a", 2, "x"))


def test_what_went_while_all_were_listed_does_not_come_back_with_the_list() -> None:
    kept = cache()
    kept.hear(seen("a", 1))
    before = kept.versions()
    listed = [kept.entry(seen("a", 1)), kept.entry(seen("b", 2))]
    kept.hear(seen("a", 5), gone=True)
    kept.hear(seen("b", 3), gone=True)
    assert not kept.compare(listed, before)
    assert kept.items == {}
    assert kept.hear(seen("a", 7)), "another of its name is another"


def test_what_a_list_lacks_is_gone_unless_it_came_after_the_list_was_asked_for() -> None:
    kept = cache()
    kept.hear(seen("gone", 1))
    before = kept.versions()
    kept.hear(seen("late", 2))
    assert kept.compare([], before)
    assert [*kept.items] == ["late"]
