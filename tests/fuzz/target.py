"""One hostile input through the whole pure path: a runtime's request, a pod's manifest, the decision, the rules.

An input is text: lines `KEY=VALUE`, an empty line, and what the runtime hands over on stdin. A key is a CNI_* variable, or

- `manifest`: JSON, of which the pod is made;
- `annotation NAME`, `label NAME`, `env NAME`: of the pod, of its proxy; a value in double quotes is read as JSON, so that
  it may hold newlines and lone surrogates;
- `uid`, `gid`: of the proxy, as JSON; `port`: a containerPort, as JSON; `address`: one of the pod's.

No exception but the declared ones may come of it; each refusal says what was seen and what is allowed, on a line; no rule
holds anything but what the grammar knows, and no value that the pod has not given; nor are there more rules than it asks for.
"""

from __future__ import annotations

import ipaddress
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from plugin import cni, iptables, nft, wire
from plugin.cni import CniError, Request
from plugin.decision import decide
from plugin.parameters import Defaults
from plugin.pod import ManifestError, Pod
from plugin.prefilter import Pass, outside_mesh
from plugin.rules import ruleset
from plugin.values import InvalidValue
from tests.fuzz.grammar import values

if TYPE_CHECKING:
    from plugin.redirect import Redirect
    from plugin.values import Address
    from tests.fuzz.grammar import Value

LONGEST_MESSAGE = 700  # characters
LINES_AT_LEAST, LINES_A_CHARACTER = 300, 8  # of rules, in all families; `a,` as an excluded interface makes 8
OWN = {  # what rules hold of themselves
    *(("port", str(port)) for port in (53, 15001, 15006, 15008, 15020, 15021, 15053, 15090)),
    *(("range", each) for each in ("127.0.0.1/32", "::1/128", "127.0.0.6/32", "::6/128")),
    ("id", "1337"),
    ("name", "lo"),
}
_checked: set[Redirect] = set()


class Finding(AssertionError):  # noqa: N818 - what the fuzzer is there for
    """Something came of an input that must not."""


def once(data: bytes) -> None:
    """Take one input through.

    Raises:
        Finding: if a refusal is unclear or a rule is strange; any other exception is a finding, too.
    """
    _frame(data)
    if b"\0" in data:
        _request(*wire.split(data))  # as a client would send it
    head, _, stdin = data.partition(b"\n\n")
    pairs = [line.partition(b"=")[::2] for line in head.split(b"\n")]
    variables = {key: value for key, value in pairs if key.startswith(b"CNI_")}
    if variables or stdin:
        _request(*wire.split(wire.join(variables, stdin)))
    if len(variables) < len(pairs):
        _pod([(key.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for key, value in pairs])


def _frame(data: bytes) -> None:
    if len(data) >= wire.HEAD:
        try:
            wire.head(data[: wire.HEAD], wire.LARGEST_REQUEST)
        except wire.WireError as error:
            _is_clear(str(error))


def _request(variables: dict[bytes, bytes], stdin: bytes) -> None:
    try:
        cni.version_asked(stdin)
        request = Request.parse(variables, stdin)
    except CniError as error:
        answer = json.loads(error.encode())
        if answer["code"] != error.code or answer["msg"] != f"istio-cni: {error.msg}":
            raise Finding(f"the runtime reads {answer}") from error
        _is_clear(error.msg)
        return
    if passes := outside_mesh(request.namespace, request.pod, request.excluded, request.annotations):
        _is_clear(passes.reason)
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
        if not error.key or not error.allowed or f"{error.key}: saw " not in str(error):
            raise Finding(f"{error!r} names no key, or not what was seen or is allowed") from error
        _is_clear(str(error))
        return
    if isinstance(decided, Pass):
        _is_clear(decided.reason)
    elif decided not in _checked:
        _rules(decided, pod)
        if len(_checked) < 100_000:
            _checked.add(decided)


def _rules(redirect: Redirect, pod: Pod) -> None:
    rules = ruleset(redirect)
    text = nft.transaction(rules)
    said = "".join(pod.annotations.values())
    if text.count("\n") > LINES_AT_LEAST + LINES_A_CHARACTER * (
        len(said) + sum(len(each.ports) for each in pod.containers)
    ):
        raise Finding(f"{text.count(chr(10))} lines of rules come of {len(said)} characters")
    seen = values(text, is_nft=True)
    for family in redirect.families:
        written = iptables.transaction(rules, family, "")
        seen |= values(written, is_nft=False)
        if iptables.own_listing(written) != iptables.listing(rules, family):
            raise Finding("what is written is not read back as it was")
    if strange := {_whole(each) for each in seen} - _asked_for(pod):
        raise Finding(f"rules hold {sorted(strange)}, for which the pod does not ask")


def _asked_for(pod: Pod) -> set[Value]:
    """Find what a pod may have put into rules, read in another way than `plugin.values` reads it."""
    containers = (*pod.containers, *pod.init_containers)
    ids = [pod.run_as_user, pod.run_as_group]
    ids += [given for each in containers for given in (each.run_as_user, each.run_as_group)]
    found = {("id", str(each)) for each in ids} | {("port", str(port)) for each in containers for port in each.ports}
    for text in pod.annotations.values():
        found |= {("port", digits.lstrip("0")) for digits in re.findall("[0-9]+", text)}
        tokens = {token.strip() for token in text.split(",")}
        found |= {("name", token) for token in tokens} | {_whole(("range", token)) for token in tokens}
    return found | OWN


def _whole(value: Value) -> Value:
    """Bring a range into one form; other values are as they are."""
    kind, text = value
    if kind == "range":
        with suppress(ValueError):
            return kind, str(ipaddress.ip_network(text, strict=False))
    return value


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
            metadata[f"{kind}s"][name] = _text(text)
        elif kind == "env":
            proxy["env"].append({"name": name, "value": _text(text)})
        elif kind in ("uid", "gid"):
            proxy["securityContext"]["runAsUser" if kind == "uid" else "runAsGroup"] = _json(text)
        elif kind == "port":
            app["ports"].append({"containerPort": _json(text)})
    return {"metadata": metadata, "spec": {"containers": [app, proxy]}}


def _text(text: str) -> str:
    read = _json(text) if text.startswith('"') else text
    return read if isinstance(read, str) else text


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
