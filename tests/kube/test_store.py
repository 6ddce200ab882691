"""A store keeps the newest observed state of each object, and nothing of those that are gone."""

from __future__ import annotations

from typing import Any

import pytest

from installer.kube.store import Store

pytestmark = pytest.mark.pure


def seen(name: str, version: int, says: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, "says": says}


def store() -> Store[str]:
    return Store(lambda manifest: str(manifest["says"]))


def test_an_older_state_never_replaces_a_newer_one() -> None:
    kept = store()
    assert kept.observe(seen("a", 10, "new"))
    assert not kept.observe(seen("a", 9, "old"))
    assert kept.items == {"a": "new"}
    assert not kept.observe(seen("a", 9), deleted=True)


def test_a_new_version_without_a_change_of_what_is_kept_is_no_change() -> None:
    kept = store()
    kept.observe(seen("a", 1, "x"))
    assert not kept.observe(seen("a", 2, "x"))


def test_list_does_not_restore_an_object_deleted_meanwhile() -> None:
    kept = store()
    kept.observe(seen("a", 1))
    before = kept.versions()
    listed = [kept.entry(seen("a", 1)), kept.entry(seen("b", 2))]
    kept.observe(seen("a", 5), deleted=True)
    kept.observe(seen("b", 3), deleted=True)
    assert not kept.replace(listed, before)
    assert kept.items == {}
    assert kept.observe(seen("a", 7)), "another of its name is another"


def test_list_removes_what_it_lacks_unless_observed_after_the_request() -> None:
    kept = store()
    kept.observe(seen("gone", 1))
    before = kept.versions()
    kept.observe(seen("late", 2))
    assert kept.replace([], before)
    assert [*kept.items] == ["late"]


def test_list_replaces_earlier_state_even_with_an_older_version() -> None:
    """After etcd was restored from a backup, versions start again from an earlier one."""
    kept = store()
    kept.observe(seen("a", 100, "lost"))
    before = kept.versions()
    assert kept.replace([kept.entry(seen("a", 50, "restored"))], before)
    assert kept.items == {"a": "restored"}
    assert kept.observe(seen("a", 51, "changed"))
