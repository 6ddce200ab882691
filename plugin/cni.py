"""The CNI protocol between container runtime and plugin (CNI spec 0.1.0 to 1.1.0).

The client imports this only on its rare paths, and frozen: hence no dataclass, whose import costs more than all else.
"""

from __future__ import annotations

import enum
import json
import re
from typing import NamedTuple

from plugin import jsontext
from plugin.keys import STATUS
from plugin.version import NEWEST, SUPPORTED_VERSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ASKED = ("ADD", "CHECK", "STATUS")  # forwarded to the agent; the client answers DEL, GC and VERSION itself
SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
POD_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"

_POD_KEYS = ("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID")
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_INTERFACE = re.compile(r"(?!\.{1,2}$)[^\s/:\0]{1,15}")
_KUBERNETES_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_POD_UID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


class Code(enum.IntEnum):
    """Error codes: below 100 from the specification (CNI spec 1.1, section 'Error'), from 100 on our own."""

    INCOMPATIBLE_VERSION = 1
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    REDIRECT_FAILED = 100
    NOT_ALLOWED = 101


class CniError(Exception):
    """An error for the runtime: code, and a message that says what was seen, what was expected and what to do."""

    def __init__(self, code: Code, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code, self.msg, self.details = code, msg, details

    def encode(self, cni_version: str = NEWEST) -> bytes:
        """Format the error as the runtime reads it from stdout."""
        error: dict[str, Any] = {"cniVersion": cni_version, "code": int(self.code), "msg": f"istio-cni: {self.msg}"}
        if self.details:
            error["details"] = self.details
        return json.dumps(error).encode()


class Request(NamedTuple):
    """One runtime call of the plugin.

    `addresses` are the pod's, in prevResult's order, as text with a prefix length; `annotations` are None if the
    runtime does not pass them; `prev_result` holds prevResult verbatim, so that nothing of it is lost.
    """

    command: str
    container_id: str
    cni_version: str
    namespace: str
    pod: str
    pod_uid: str | None
    excluded: tuple[str, ...]
    annotations: Mapping[str, str] | None
    addresses: tuple[str, ...]
    prev_result: str | None

    @classmethod
    def parse(cls, environment: Mapping[bytes, bytes], stdin: bytes) -> Request:
        """Validate the runtime's input and parse it into types.

        Args:
            environment: the CNI_* variables.
            stdin: the network configuration, JSON.

        Raises:
            CniError: code 1, 4, 6 or 7, naming the variable or the key.
        """
        command = _text(environment, b"CNI_COMMAND")
        if command not in ASKED:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f"CNI_COMMAND: saw {command[:40]!r} in a request to the agent, expected {', '.join(ASKED[:-1])} or "
                f"{ASKED[-1]}: the plugin answers DEL, GC and VERSION without the agent",
            )
        if command != "STATUS":
            _check_attachment(environment)
        args = _arguments(_text(environment, b"CNI_ARGS"))
        text, members = _config(stdin)
        values = {key: each.value for key, each in members.items()}
        version = _version(values, command)
        annotations = _annotations(values)
        namespace, pod, uid = _pod(args, may_be_injected=annotations is None or STATUS in annotations)
        prev = members.get("prevResult")
        return cls(
            command=command,
            container_id=_text(environment, b"CNI_CONTAINERID"),
            cni_version=version,
            namespace=namespace,
            pod=pod,
            pod_uid=uid or None,
            excluded=_strings(values, "exclude_namespaces"),
            annotations=annotations,
            addresses=tuple(_addresses(prev and prev.value)),
            prev_result=text[prev.start : prev.end] if prev and prev.value is not None else None,
        )

    def result(self) -> bytes:
        """Build the answer of a chained plugin that adds nothing: prevResult verbatim (CNI spec 1.1, section 2)."""
        if self.command != "ADD":
            return b""
        if self.prev_result is None:
            return json.dumps({"cniVersion": self.cni_version}).encode()
        return self.prev_result.encode()


def version_asked(stdin: bytes) -> str:
    """Return the version for the answer to VERSION: the requested one, or our newest if that is unknown.

    Raises:
        CniError: code 6, if stdin is neither empty nor a JSON object.
    """
    asked = _config(stdin)[1].get("cniVersion") if stdin.strip() else None
    return asked.value if asked and asked.value in SUPPORTED_VERSIONS else NEWEST


def _text(environment: Mapping[bytes, bytes], name: bytes) -> str:
    try:
        return environment.get(name, b"").decode()
    except UnicodeDecodeError as error:
        raise CniError(
            Code.INVALID_ENVIRONMENT, f"{name.decode()}: saw {environment[name]!r:.80}, expected UTF-8"
        ) from error


def _check_attachment(environment: Mapping[bytes, bytes]) -> None:
    required = (b"CNI_CONTAINERID", b"CNI_NETNS", b"CNI_IFNAME")
    missing = [name.decode() for name in required if not environment.get(name)]
    if missing:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"{', '.join(missing)}: not set. istio-cni is a CNI plugin and is run by the container runtime, which sets "
            "CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS and CNI_IFNAME",
        )
    for name, form, expected in (
        (b"CNI_CONTAINERID", _CONTAINER_ID, "letters, digits, '_', '.', '-', the first a letter or a digit"),
        (b"CNI_IFNAME", _INTERFACE, "at most 15 characters, none of them '/', ':' or a blank"),
    ):
        value = _text(environment, name)
        if not form.fullmatch(value):
            raise CniError(Code.INVALID_ENVIRONMENT, f"{name.decode()}: saw {value!r:.80}, expected {expected}")


def _arguments(text: str) -> dict[str, str]:
    pairs = [pair for pair in text.split(";") if pair]
    for pair in pairs:
        if "=" not in pair:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: saw {pair!r:.80}, expected KEY=VALUE;KEY=VALUE")
    found: dict[str, str] = {}
    for key, _, value in (pair.partition("=") for pair in pairs):
        if key not in _POD_KEYS and key.strip().upper() in _POD_KEYS:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: saw {key!r:.80}, expected {key.strip().upper()}")
        if key in _POD_KEYS and found.get(key, value) != value:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f"CNI_ARGS: saw {key} twice, as {found[key]!r:.80} and {value!r:.80}, expected one",
            )
        found[key] = value
    given = [key for key in _POD_KEYS if found.get(key)]
    if given and not all(found.get(key) for key in _POD_KEYS[:2]):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_ARGS: saw {', '.join(given)} alone, expected {_POD_KEYS[0]} and {_POD_KEYS[1]}, or none of them for "
            "what is no pod",
        )
    return found


def _pod(args: Mapping[str, str], *, may_be_injected: bool) -> tuple[str, str, str]:
    """Return a pod's namespace, name and uid; all empty for what is no pod of Kubernetes.

    A sandbox that somebody else makes, as with crictl, may have a name that Kubernetes allows no pod.

    Args:
        args: those of CNI_ARGS.
        may_be_injected: for all that the runtime says; then such a name is refused.
    """
    forms = (_KUBERNETES_NAME, _KUBERNETES_NAME, _POD_UID)
    namespace, name, uid = (args.get(key, "") for key in _POD_KEYS)
    for key, value, form in zip(_POD_KEYS, (namespace, name, uid), forms, strict=True):
        if value and not form.fullmatch(value):
            if may_be_injected:
                raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: {key}: saw {value!r:.80}, expected {form.pattern}")
            return "", "", ""
    return namespace, name, uid


def _config(stdin: bytes) -> tuple[str, dict[str, jsontext.Member]]:
    """Decode the network configuration; return its text, and its members by key."""
    if not stdin.strip():
        raise CniError(Code.DECODING_FAILURE, "stdin: saw nothing, expected the network configuration as a JSON object")
    try:
        text = stdin.decode()
        return text, jsontext.load_object(text)
    except ValueError as error:
        raise CniError(
            Code.DECODING_FAILURE, f"stdin: saw {stdin!r:.60}, expected a network configuration, a JSON object: {error}"
        ) from error


def _version(values: Mapping[str, Any], command: str) -> str:
    version = values.get("cniVersion") or "0.1.0"
    if version not in SUPPORTED_VERSIONS:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"cniVersion: saw {version!r:.40}, expected one of {', '.join(SUPPORTED_VERSIONS)}",
        )
    since = SINCE.get(command, SUPPORTED_VERSIONS[0])
    if SUPPORTED_VERSIONS.index(version) < SUPPORTED_VERSIONS.index(since):
        raise CniError(
            Code.INCOMPATIBLE_VERSION, f"cniVersion: saw {version} with {command}, which needs {since} or later"
        )
    return str(version)


def _strings(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = values.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise CniError(Code.INVALID_CONFIG, f"{key}: saw {value!r:.80}, expected a list of strings")
    return tuple(value)


def _annotations(values: Mapping[str, Any]) -> Mapping[str, str] | None:
    runtime = values.get("runtimeConfig") or {}
    if not isinstance(runtime, dict):
        raise CniError(Code.INVALID_CONFIG, f"runtimeConfig: saw {runtime!r:.80}, expected an object")
    if POD_ANNOTATIONS not in runtime:
        return None
    annotations = runtime[POD_ANNOTATIONS]
    if annotations is None:
        return {}  # how containerd denotes a pod without annotations
    if not annotations and annotations != {}:
        return None  # such as [] or "": no information
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise CniError(
            Code.INVALID_CONFIG,
            f"runtimeConfig.{POD_ANNOTATIONS}: saw {annotations!r:.80}, expected an object of strings",
        )
    return annotations


def _addresses(prev: Any) -> list[str]:
    """Addresses of a result: `ips` since 0.3.0, `ip4` and `ip6` before."""
    if prev is None:
        return []
    if not isinstance(prev, dict):
        raise CniError(Code.INVALID_CONFIG, f"prevResult: saw {prev!r:.80}, expected an object")
    try:
        found = [ip["address"] for ip in prev.get("ips") or []]
        found += [prev[old]["ip"] for old in ("ip4", "ip6") if prev.get(old)]
    except (TypeError, KeyError, AttributeError) as error:
        raise CniError(
            Code.INVALID_CONFIG, f"prevResult: saw {prev!r:.200}, expected ips with an address each (missing: {error})"
        ) from error
    if not all(isinstance(address, str) for address in found):
        raise CniError(Code.INVALID_CONFIG, f"prevResult.ips: saw {found!r:.80}, expected addresses as strings")
    return found
