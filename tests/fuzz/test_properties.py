"""Whatever an annotation, an env or an id holds: rules that the grammar knows, or a refusal that says why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.parameters import INTERCEPTION_MODE, REROUTE, TRAFFIC
from tests.fuzz.target import once
from tests.redirect.strategies import ANNOTATIONS

KEYS = [INTERCEPTION_MODE, REROUTE, *(TRAFFIC + name for name in ANNOTATIONS if "/" not in name)]
ODD = st.one_of(
    st.text(),
    st.text(alphabet="0123456789,.:/* \t-*abcdef", max_size=40),
    st.sampled_from(
        [
            "\u0663",
            "\uff18\uff10",
            "1e3",
            "0x50",
            "-1",
            "+80",
            "80\x00",
            "80\n443",
            "80;443",
            "10.0.0.0/08",
            "1.2.3",
            "::/129",
        ]
    ),
    st.integers().map(str),
)


def line(key: str, text: str) -> bytes:
    return f"{key}={text}".replace("\n", "\x0b").encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("key", KEYS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=ODD)
def test_annotations(key: str, text: str) -> None:
    once(line(f"annotation {key}", text))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(name=st.sampled_from(["ISTIO_META_DNS_CAPTURE", "INVALID_DROP", "ISTIO_DUAL_STACK", "DISABLE_ENVOY"]), text=ODD)
def test_env(name: str, text: str) -> None:
    once(line(f"env {name}", text))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)),
    max_leaves=8,
)
FIELDS = [
    "metadata",
    "spec",
    "name",
    "namespace",
    "annotations",
    "labels",
    "containers",
    "initContainers",
    "env",
    "ports",
]
MANIFESTS = st.recursive(
    JSON,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from([*FIELDS, "securityContext", "runAsUser", "containerPort"]), inner, max_size=4),
        st.lists(inner, max_size=2),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(manifest=st.dictionaries(st.sampled_from(["metadata", "spec"]), MANIFESTS))
def test_manifests(manifest: dict[str, Any]) -> None:
    once(b"manifest=" + json.dumps(manifest).encode())
