"""A list of our own is made from a configuration of others, does the same and our part, and is told from others' (D11)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from installer.cniconfig import conflist
from installer.cniconfig.netconf import MARKER, InvalidConfigError, NetworkConf
from tests.cniconfig import generated
from tests.cniconfig.examples import CONFS, ENTRY, LISTS

pytestmark = pytest.mark.pure

NAME = "05-x-istio-cni.conflist"


def values(content: bytes) -> Any:
    return json.loads(content.decode("utf-8", "surrogateescape"))


def check_made_from_conf(content: bytes) -> None:
    made = conflist.own_list(content, "05-x.conf", NAME, ENTRY)

    original = values(content)
    kept = {key: original[key] for key in ("cniVersion", "name") if original.get(key) is not None}
    marker = {"file": NAME, "source": "05-x.conf"}
    assert values(made) == {MARKER: marker, **kept, "plugins": [original, ENTRY]}
    assert conflist.is_spliced(made, ENTRY)
    assert conflist.source_of(made, NAME) == "05-x.conf"
    assert conflist.source_of(made, "05-copied.conflist") is None


@pytest.mark.parametrize("content", CONFS.values(), ids=CONFS)
def test_own_conflist_is_made_from_a_realistic_conf(content: bytes) -> None:
    check_made_from_conf(content)


@given(generated.confs())
def test_own_conflist_is_made_from_any_conf(content: bytes) -> None:
    check_made_from_conf(content)


@given(generated.lists())
def test_own_conflist_is_made_from_any_conflist(content: bytes) -> None:
    made = conflist.own_list(content, "05-x.conflist", NAME, ENTRY)

    spliced = values(conflist.splice(content, ENTRY))
    assert values(made) == {**spliced, MARKER: {"file": NAME, "source": "05-x.conflist"}}
    assert conflist.source_of(made, NAME) == "05-x.conflist"


def test_conf_without_a_name_gets_its_file_name_as_in_cri_o() -> None:
    for content in (b'{"type": "bridge"}', b'{"type": "bridge", "name": ""}', b'{"type": "bridge", "name": null}'):
        made = values(conflist.own_list(content, "05-x.conf", NAME, ENTRY))
        assert made["name"] == "05-x.conf"
        assert "cniVersion" not in made


@pytest.mark.parametrize(
    "marker", ['"x"', "1", "null", "[]", "{}", '{"file": "05-x-istio-cni.conflist"}', '{"file": 1, "source": "a"}']
)
def test_foreign_marker_makes_no_own_conflist(marker: str) -> None:
    content = b'{"istioCNI": %s, "name": "x", "plugins": [{"type": "bridge"}]}' % marker.encode()
    assert conflist.source_of(content, NAME) is None


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS)
def test_foreign_conflist_is_not_an_own_conflist(content: bytes) -> None:
    for each in (content, conflist.splice(content, ENTRY)):
        assert conflist.source_of(each, NAME) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "saw an empty file"),
        (LISTS["calico"], "saw a list of plugins, expected a single one"),
        (b'{"name":"x"}', "type: saw none"),
        (b'{"name":1,"type":"a"}', "name: saw 1"),
        (b'{"name":"x","type":["a"]}', r'type: saw \["a"\]'),
        (b'{"name":"x","type":"a","cniVersion":{}}', "cniVersion: saw {}"),
        (b'{"name":"x","type":"istio-cni"}', "type: saw istio-cni by itself"),
    ],
)
def test_invalid_conf_is_rejected(content: bytes, message: str) -> None:
    for operation in (NetworkConf.parse, lambda content: conflist.own_list(content, "05-x.conf", NAME, ENTRY)):
        with pytest.raises(InvalidConfigError, match=message):
            operation(content)
