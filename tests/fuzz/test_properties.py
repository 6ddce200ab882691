"""Whatever an annotation, an env, an id or a runtime holds: what the grammar knows, or a refusal that says why (F32)."""

from __future__ import annotations

import ipaddress
import json
import string
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plugin import nft, wire
from plugin.cni import POD_ANNOTATIONS, CniError, Request
from plugin.decision import decide
from plugin.handler import _addresses
from plugin.keys import INTERCEPTION_MODE, REROUTE, TRAFFIC
from plugin.parameters import Defaults
from plugin.pod import Pod
from plugin.redirect import Redirect
from plugin.rules import ruleset
from plugin.values import Address, InvalidValue
from tests.fuzz.mutator import AFTER, BAD
from tests.fuzz.target import LINES_A_CHARACTER, LINES_AT_LEAST, LONGEST_MESSAGE, once
from tests.redirect.strategies import ANNOTATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.pure

KEYS = [INTERCEPTION_MODE, REROUTE, *(TRAFFIC + name for name in ANNOTATIONS if "/" not in name)]
ENV = ["ISTIO_META_DNS_CAPTURE", "INVALID_DROP", "ISTIO_DUAL_STACK", "DISABLE_ENVOY"]
RUNTIME = {
    b"CNI_COMMAND": b"ADD",
    b"CNI_CONTAINERID": b"a",
    b"CNI_NETNS": b"/x",
    b"CNI_IFNAME": b"eth0",
    b"CNI_ARGS": b"K8S_POD_NAMESPACE=a;K8S_POD_NAME=b",
}
SURROGATES = st.characters(categories=["Cs", "Cc", "Nd", "Zs", "Zl", "Cf"])  # also digits and blanks of every script
ODD = st.one_of(
    st.text(),
    st.text(st.one_of(st.characters(), SURROGATES), max_size=20),
    st.text(alphabet="0123456789,.:/* \t\n-*abcdef", max_size=40),
    st.sampled_from(BAD),
    st.tuples(st.sampled_from(["80", "eth0", "10.0.0.0/8", "true", "REDIRECT", "*"]), st.sampled_from(AFTER)).map(
        "".join
    ),
    st.integers().map(str),
    st.sampled_from([10, 100, 5000]).flatmap(lambda times: st.text(max_size=8).map(lambda text: text * times)),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20), ODD),
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
RESULTS = st.recursive(
    JSON,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["ips", "ip4", "ip6", "ip", "address"]), inner, max_size=4),
        st.lists(inner, max_size=2),
    ),
    max_leaves=8,
)
CONFIGS = st.fixed_dictionaries(
    {"cniVersion": st.one_of(st.sampled_from(["0.2.0", "1.0.0", "1.1.0"]), JSON), "prevResult": RESULTS},
    optional={
        "exclude_namespaces": JSON,
        "runtimeConfig": st.one_of(JSON, JSON.map(lambda each: {POD_ANNOTATIONS: each})),
    },
)


def line(key: str, text: str) -> bytes:
    return f"{key}={json.dumps(text)}".encode()


def meshed(**annotations: str) -> Pod:
    given = {TRAFFIC + name: text for name, text in annotations.items()} | {"sidecar.istio.io/status": "{}"}
    metadata = {"name": "web", "annotations": given}
    return Pod.from_manifest({"metadata": metadata, "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]}})


def request(config: bytes) -> Request:
    return Request.parse(*wire.split(wire.join(RUNTIME, config)))


@contextmanager
def suppress_refusal(refusals: list[str]) -> Iterator[None]:
    """Take the message of a refusal; any other exception is a failure."""
    try:
        yield
    except CniError as error:
        refusals.append(error.msg)


@pytest.mark.parametrize("key", KEYS)
@settings(max_examples=150)
@given(text=ODD)
def test_annotations_parse_or_fail_cleanly(key: str, text: str) -> None:
    once(line(f"annotation {key}", text))


@settings(max_examples=200)
@given(name=st.sampled_from(ENV), text=ODD)
def test_environment_parses_or_fails_cleanly(name: str, text: str) -> None:
    once(line(f"env {name}", text))


@settings(max_examples=200)
@given(key=st.sampled_from(["uid", "gid", "port"]), value=JSON)
def test_ids_and_ports_parse_or_fail_cleanly(key: str, value: Any) -> None:
    once(f"{key}={json.dumps(value)}".encode())


@settings(max_examples=300)
@given(manifest=st.dictionaries(st.sampled_from(["metadata", "spec"]), MANIFESTS))
def test_manifests_parse_or_fail_cleanly(manifest: dict[str, Any]) -> None:
    once(b"manifest=" + json.dumps(manifest).encode())


@settings(max_examples=300)
@given(config=CONFIGS)
def test_stdin_parses_or_fails_cleanly(config: dict[str, Any]) -> None:
    once(b"".join(k + b"=" + v + b"\n" for k, v in RUNTIME.items()) + b"\n" + json.dumps(config).encode())


@settings(max_examples=200)
@given(text=ODD)
def test_cni_args_parse_or_fail_cleanly(text: str) -> None:
    given = RUNTIME | {
        b"CNI_ARGS": b"K8S_POD_NAME=" + text.encode("utf-8", "surrogateescape" if "\udcff" in text else "replace")
    }
    once(b"".join(k + b"=" + v + b"\n" for k, v in given.items()) + b"\n{}")


@settings(max_examples=200)
@given(
    variables=st.dictionaries(
        st.binary(min_size=1, max_size=8).map(lambda name: b"CNI_" + name.translate(None, b"\0=")),
        st.binary(min_size=1, max_size=20).map(lambda value: value.translate(None, b"\0") or b"x"),
        min_size=1,
    ),
    stdin=st.binary(),
)
@example(variables={b"CNI_ARGS": b"a=b;c=d"}, stdin=b"\0\0\0")
def test_framed_message_round_trips(variables: dict[bytes, bytes], stdin: bytes) -> None:
    assert wire.split(wire.join(variables, stdin)) == (variables, stdin)


@pytest.mark.parametrize("key", [key for key in KEYS if key != INTERCEPTION_MODE])
def test_a_refusal_names_key_and_value_and_what_is_allowed(key: str) -> None:
    pod = Pod.from_manifest(
        {
            "metadata": {"name": "web", "annotations": {"sidecar.istio.io/status": "{}", key: "80\n443"}},
            "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]},
        }
    )
    with pytest.raises(InvalidValue) as refused:
        decide(pod, (), Defaults())
    assert str(refused.value).startswith(rf"{key}: saw '80\n443', expected ")
    assert str(refused.value).endswith(r"('80\n443' is none)")


def test_last_duplicate_key_wins_in_every_parser() -> None:
    config = (
        b'{"cniVersion":"9","cniVersion":"1.0.0","prevResult":{"a":1},"prevResult":{"ips":[{"address":"10.0.0.1/8"}]}}'
    )
    asked = request(config)
    assert (asked.cni_version, asked.addresses) == ("1.0.0", ("10.0.0.1/8",))
    assert asked.result() == b'{"ips":[{"address":"10.0.0.1/8"}]}'


@pytest.mark.usefixtures("usual_recursion_limit")
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_rejected(opening: str, closing: str) -> None:
    refusals: list[str] = []
    for depth in range(900, 1100):
        with suppress_refusal(refusals):
            request(f'{{"cniVersion":"1.0.0","prevResult":{{"x":{opening * depth}1{closing * depth}}}}}'.encode())
    assert refusals
    assert all(each.isprintable() and len(each) <= LONGEST_MESSAGE for each in refusals)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "x" * 5000,
            "\n",
            "1\u0663.0.0.1",
            "",
            "fd00::1%%/64",
            "10.0.0.1/33",
            "fd00::1/129",
            "10.0.0.1/" + "9" * 5000,
        ),
        *(f"10.0.0.1/{bits}" for bits in ("99", "", "\u0663", "+8", "-1", " 8", "1_6", "8/8", "255.0.0.0")),
    ],
)
def test_an_address_of_prevResult_that_is_none_is_refused(address: str) -> None:  # noqa: N802 - the field's name
    asked = request(json.dumps({"cniVersion": "1.0.0", "prevResult": {"ips": [{"address": address}]}}).encode())
    with pytest.raises(CniError) as refused:
        _addresses(asked)
    assert refused.value.msg.startswith(f"prevResult.ips: saw {address!r:.80}, expected ")
    assert refused.value.msg.isprintable()


@given(st.ip_addresses(), st.data())
def test_an_address_of_prevResult_is_read_as_by_the_standard_library(  # noqa: N802 - the field's name
    address: Address, data: st.DataObject
) -> None:
    text = f"{address}/{data.draw(st.integers(0, address.max_prefixlen))}"
    asked = request(json.dumps({"cniVersion": "1.0.0", "prevResult": {"ips": [{"address": text}]}}).encode())
    assert _addresses(asked) == (ipaddress.ip_interface(text).ip,)


def test_address_scope_is_dropped() -> None:
    asked = request(json.dumps({"cniVersion": "1.0.0", "prevResult": {"ips": [{"address": "fd00::1%\n/64"}]}}).encode())
    assert [str(each) for each in _addresses(asked)] == ["fd00::1"]


@pytest.mark.parametrize(
    ("interfaces", "number", "refused"),
    [(16, 100, None), (200, 100, "kubevirtInterfaces"), (16, 200, "includeOutboundIPRanges")],
)
@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
def test_rules_grow_with_the_input_alone(interfaces: int, number: int, refused: str | None, mode: str) -> None:
    names = [first + second for first in string.ascii_letters for second in string.ascii_letters][:interfaces]
    ranges = [f"10.{each}.0.0/16" for each in range(number)]
    pod = meshed(kubevirtInterfaces=",".join(names), includeOutboundIPRanges=",".join(ranges))
    pod = replace(pod, annotations={**pod.annotations, INTERCEPTION_MODE: mode})
    if refused:
        with pytest.raises(InvalidValue, match=TRAFFIC + refused):
            decide(pod, (), Defaults())
        return
    decided = decide(pod, (), Defaults())
    assert isinstance(decided, Redirect)
    said = sum(map(len, pod.annotations.values()))
    assert nft.transaction(ruleset(decided)).count("\n") <= LINES_AT_LEAST + LINES_A_CHARACTER * said
