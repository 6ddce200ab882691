"""A single plugin's configuration becomes a list and comes back byte for byte, from the list alone (F11)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from installer import conflist
from installer.netconf import InvalidConfigError
from tests.conflist import generated
from tests.conflist.examples import CONFS, ENTRY, LISTS


def values(content: bytes) -> Any:
    return json.loads(content.decode("utf-8", "surrogateescape"))


def check_conversion(content: bytes) -> None:
    made = conflist.from_conf(content, ENTRY)

    original = values(content)
    kept = {key: original[key] for key in ("cniVersion", "name") if original.get(key) is not None}
    assert values(made) == {**kept, "plugins": [original, ENTRY]}
    assert conflist.is_spliced(made, ENTRY)
    assert conflist.is_from_conf(made)
    assert conflist.restore(made) == content
    assert conflist.restore(conflist.remove(made)) == content, "also after someone took our entry out"
    newer = conflist.splice(made, {**ENTRY, "excludeNamespaces": []})
    assert conflist.restore(newer) == content, "also after our entry changed"


@pytest.mark.parametrize("content", CONFS.values(), ids=CONFS)
def test_realistic_configurations_come_back_as_they_were(content: bytes) -> None:
    check_conversion(content)


@given(generated.confs())
def test_any_configuration_comes_back_as_it_was(content: bytes) -> None:
    check_conversion(content)


@pytest.mark.parametrize("content", CONFS.values(), ids=CONFS)
def test_a_list_that_was_written_anew_by_others_still_gives_the_same_configuration(content: bytes) -> None:
    made = conflist.from_conf(content, ENTRY)
    rewritten = json.dumps(values(made), indent=7, sort_keys=True).encode("utf-8", "surrogateescape")

    restored = conflist.restore(rewritten)

    assert restored is not None
    assert values(restored) == values(content)


def test_a_list_to_which_others_have_added_cannot_become_a_single_configuration_again() -> None:
    made = values(conflist.from_conf(CONFS["ovn"], ENTRY))
    for changed in (
        {**made, "plugins": [*made["plugins"], {"type": "tuning"}]},
        {**made, "disableCheck": True},
    ):
        content = json.dumps(changed).encode()
        assert conflist.restore(content) is None
        assert conflist.is_from_conf(content)


def test_a_list_with_another_name_or_version_than_its_plugin_is_none_of_ours() -> None:
    made = values(conflist.from_conf(CONFS["ovn"], ENTRY))
    for changed in ({**made, "name": "other"}, {**made, "cniVersion": "1.0.0"}):
        assert conflist.restore(json.dumps(changed).encode()) is None


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS)
def test_a_list_by_nature_is_not_taken_for_one_of_ours(content: bytes) -> None:
    assert conflist.restore(content) is None
    assert conflist.restore(conflist.splice(content, ENTRY)) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "saw an empty file"),
        (LISTS["calico"], "saw a list of plugins, expected a single one"),
        (b'{"name":"x"}', "type: saw none"),
        (b'{"type":"a"}', "name: saw none"),
        (b'{"name":"","type":"a"}', 'name: saw ""'),
        (b'{"name":"x","type":["a"]}', r'type: saw \["a"\]'),
        (b'{"name":"x","type":"a","cniVersion":{}}', "cniVersion: saw {}"),
        (b'{"name":"x","type":"istio-cni"}', "type: saw istio-cni by itself"),
    ],
)
def test_what_is_no_single_configuration_is_refused(content: bytes, message: str) -> None:
    for operation in (conflist.check_conf, lambda content: conflist.from_conf(content, ENTRY)):
        with pytest.raises(InvalidConfigError, match=message):
            operation(content)
