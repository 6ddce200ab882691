"""The checkpoint outlives the agent: it is read over the next chart's settings, by its earlier name too (D10)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from installer.config.desired import ControlPlaneRef, DesiredState
from installer.config.kinds import encode
from installer.config.settings import Settings, parse_settings
from installer.config.value_types import LogLevel
from installer.host.checkpoint import load, save
from installer.host.socket_dir import require_own
from installer.host.uninstall import uninstall

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.ondisk import NodeOnDisk

pytestmark = pytest.mark.kernel

MESH = ControlPlaneRef("istio-system", "mesh", "uid", 3)


@pytest.fixture
def base(tmp_path: Path) -> Settings:
    return parse_settings({"agent_socket": str(tmp_path / "agent.sock"), "exclude_namespaces": "of-the-chart"})


def changed(base: Settings, *namespaces: str) -> DesiredState:
    changes = {"log_level": "debug", "exclude_namespaces": [*namespaces]}
    now = replace(base, log_level=LogLevel.DEBUG, exclude_namespaces=namespaces)
    return DesiredState(now, False, "istio-system/mesh says enabled: false", MESH, changes=changes)


def in_texts(desired: DesiredState) -> DesiredState:
    texts = {name: encode(value) for name, value in desired.changes.items()}
    return replace(desired, changes=texts)


def saved_by_an_earlier_build(desired: DesiredState) -> None:
    save(in_texts(desired))
    folder = desired.settings.agent_socket.parent
    (folder / "checkpoint.json").rename(folder / "orders.json")


def test_without_a_checkpoint_the_charts_settings_are_in_force(base: Settings) -> None:
    assert load(base) == DesiredState(base)


def test_what_is_saved_is_loaded_over_the_settings_of_the_next_chart(base: Settings, tmp_path: Path) -> None:
    desired = changed(base, "a", "b")
    save(desired)
    assert (tmp_path / "checkpoint.json").stat().st_mode & 0o777 == 0o600
    assert load(base) == desired
    later = parse_settings(
        {"agent_socket": str(base.agent_socket), "ipv6": "never", "exclude_namespaces": "of-the-next"}
    )
    loaded = load(later)
    assert (loaded.settings.ipv6.value, loaded.settings.exclude_namespaces) == ("never", ("a", "b"))


def test_the_earlier_name_is_read_once(base: Settings, tmp_path: Path) -> None:
    saved_by_an_earlier_build(changed(base, "a"))
    assert load(base) == in_texts(changed(base, "a"))
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.json"]
    save(changed(base, "b"))
    assert load(base) == changed(base, "b")


def test_the_newer_of_both_checkpoint_files_is_loaded_after_a_downgrade_and_upgrade(base: Settings) -> None:
    saved_by_an_earlier_build(changed(base, "of-the-earlier-build"))
    save(changed(base, "of-the-build-before"))
    assert load(base) == in_texts(changed(base, "of-the-earlier-build"))
    assert load(base) == in_texts(changed(base, "of-the-earlier-build"))


def test_the_earlier_name_is_the_agents_own_and_an_uninstall_deletes_it(node: NodeOnDisk) -> None:
    socket = node.settings.agent_socket
    socket.parent.mkdir(exist_ok=True)
    (socket.parent / "orders.json").write_text("{}")
    require_own(socket)
    assert [step for step in uninstall(node.settings) if step.failed] == []
    assert not socket.parent.exists()


@pytest.mark.parametrize("name", ["checkpoint.json", "orders.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b"\0" * 100,
        json.dumps({"changes": {"log_level": "loud"}, "controlPlane": None}).encode(),
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_parse_counts_as_absent(
    base: Settings, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert load(base) == DesiredState(base)
