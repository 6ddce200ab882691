"""One hostile input through the whole pure path: a runtime's request, a pod's manifest, the decision, the rules.

An input is text: lines `KEY=VALUE`, an empty line, and what the runtime hands over on stdin. A key is a CNI_* variable, or

- `manifest`: JSON, of which the pod is made;
- `annotation NAME`, `label NAME`, `env NAME`: of the pod, of its proxy; `uid`, `gid`: of the proxy, as JSON;
- `port`: a containerPort, as JSON; `address`: one of the pod's.

No exception but the declared ones may come of it; each refusal says what was seen and what is allowed, on a line; no rule
holds anything but what the grammar knows.
"""

from __future__ import annotations

import ipaddress
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from plugin import iptables, nft, wire
from plugin.cni import CniError, Request
from plugin.decision import decide
from plugin.outside import Pass, outside_mesh
from plugin.parameters import Defaults
from plugin.pod import ManifestError, Pod
from plugin.rules import ruleset
from plugin.values import InvalidValue
from tests.fuzz.grammar import strange

if TYPE_CHECKING:
    from plugin.redirect import Redirect
    from plugin.values import Address

LONGEST_MESSAGE = 700  # characters
_checked: set[Redirect] = set()


class Finding(AssertionError):  # noqa: N818 - what the fuzzer is there for
    """Something came of an input that must not."""


def once(data: bytes) -> None:
    """Take one input through.

    Raises:
        Finding: if a refusal is unclear or a rule is strange; any other exception is a finding, too.
    """
    head, _, stdin = data.partition(b"\n\n")
    pairs = [line.partition(b"=")[::2] for line in head.split(b"\n")]
    _request({key: value for key, value in pairs if key.startswith(b"CNI_")}, stdin)
    _pod([(key.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for key, value in pairs])


def _request(variables: dict[bytes, bytes], stdin: bytes) -> None:
    variables, stdin = wire.split(wire.join(variables, stdin))
    try:
        request = Request.parse(variables, stdin)
    except CniError as error:
        answer = json.loads(error.encode())
        if answer["code"] != error.code or answer["msg"] != f"istio-cni: {error.msg}":
            raise Finding(f"the runtime reads {answer}") from error
        _is_clear(error.msg)
        return
    outside_mesh(request.namespace, request.pod, request.excluded, request.annotations)
    if result := request.result():
        json.loads(result)


def _pod(pairs: list[tuple[str, str]]) -> None:
    try:
        pod = Pod.from_manifest(_manifest(pairs))
        decided = decide(pod, _addresses(pairs), Defaults())
    except ManifestError as error:
        _is_clear(str(error))
        return
    except InvalidValue as error:
        if not error.key or not error.allowed:
            raise Finding(f"{error!r} names no key, or not what is allowed") from error
        _is_clear(str(error))
        return
    if isinstance(decided, Pass):
        _is_clear(decided.reason)
    elif decided not in _checked:
        _rules(decided)
        _checked.add(decided)


def _rules(redirect: Redirect) -> None:
    rules = ruleset(redirect)
    if line := strange(nft.transaction(rules), is_nft=True):
        raise Finding(f"nft would get {line!r}")
    for family in redirect.families:
        if line := strange(iptables.transaction(rules, family, ""), is_nft=False):
            raise Finding(f"iptables-restore would get {line!r}")
        if iptables.own_listing(iptables.transaction(rules, family, "")) != iptables.listing(rules, family):
            raise Finding("what is written is not read back as it was")


def _is_clear(message: str) -> None:
    """What people get to see: a line, without anything that a terminal or a log would act upon."""
    if not message or len(message) > LONGEST_MESSAGE or not message.isprintable():
        raise Finding(f"unclear: {message!r}")


def _manifest(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    texts = [text for key, text in pairs if key == "manifest"]
    if texts and isinstance(whole := _json(texts[0]), dict):
        return whole
    proxy: dict[str, Any] = {"name": "istio-proxy", "env": [], "securityContext": {}}
    app: dict[str, Any] = {"name": "app", "ports": []}
    metadata: dict[str, Any] = {"name": "web", "annotations": {"sidecar.istio.io/status": "{}"}, "labels": {}}
    for key, text in pairs:
        kind, _, name = key.partition(" ")
        if kind in ("annotation", "label"):
            metadata[f"{kind}s"][name] = text
        elif kind == "env":
            proxy["env"].append({"name": name, "value": text})
        elif kind in ("uid", "gid"):
            proxy["securityContext"]["runAsUser" if kind == "uid" else "runAsGroup"] = _json(text)
        elif kind == "port":
            app["ports"].append({"containerPort": _json(text)})
    return {"metadata": metadata, "spec": {"containers": [app, proxy]}}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _addresses(pairs: list[tuple[str, str]]) -> tuple[Address, ...]:
    found = []
    for key, text in pairs:
        if key == "address":
            with suppress(ValueError):
                found.append(ipaddress.ip_address(text))
    return tuple(found)
