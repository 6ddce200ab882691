"""Settings: flag over environment over default, and what a bad value gets."""

import json
from pathlib import Path

import click
import pytest

from installer.config.declaration import Setting
from installer.config.kinds import SettingError
from installer.config.settings import Settings, build_entry, declarations, parse_settings
from installer.config.value_types import DaemonSet, HostPort, LogLevel, RepairMode
from installer.main import main
from plugin.backend import Backend
from plugin.parameters import InboundPorts, Ipv6

pytestmark = pytest.mark.pure


def parsed(*arguments: str) -> Settings:
    return Settings(**main.commands["run"].make_context("run", list(arguments)).params)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in declarations():
        monkeypatch.delenv(each.variable, raising=False)


def test_settings_default_without_flags_and_environment() -> None:
    assert parsed() == parse_settings()
    assert parsed().exclude_namespaces == ("istio-system", "kube-system")
    assert parsed().log_level is LogLevel.WARN
    assert parsed().cni_conf_file_name is None


VALUES = {
    "node_name": ("worker-1.example.org", "worker-1.example.org"),
    "cni_bin_dir": ("/x/bin", Path("/x/bin")),
    "cni_conf_dir": ("/x/net.d", Path("/x/net.d")),
    "cni_conf_file_name": ("10-x.conflist", "10-x.conflist"),
    "plugin_file": ("/x/plugin", Path("/x/plugin")),
    "agent_socket": ("/x/a.sock", Path("/x/a.sock")),
    "exclude_namespaces": (" a , foo_ns,a,", ("a", "foo_ns")),
    "redirect_backend": ("iptables-legacy", Backend.IPTABLES_LEGACY),
    "inbound_ports_default": ("*", InboundPorts.ALL),
    "ipv6": ("never", Ipv6.NEVER),
    "pod_uid": ("a-uid", "a-uid"),
    "repair_mode": ("delete", RepairMode.DELETE),
    "netns_dir": ("/x/netns", Path("/x/netns")),
    "cni_cache_dir": ("/x/cni", Path("/x/cni")),
    "log_level": ("DEBUG", LogLevel.DEBUG),
    "pods_from": ("/x/pods", Path("/x/pods")),
    "health_address": ("[::1]:0", HostPort("::1", 0)),
    "kubeconfig": ("/x/config", Path("/x/config")),
    "chained": ("False", False),
    "istio_owned_cni_config": ("True", True),
    "istio_owned_cni_config_file_name": ("01-x.conflist", "01-x.conflist"),
    "mounts": ("/host", Path("/host")),
    "daemonset": ("kube-system/istio-cni-node", DaemonSet("kube-system", "istio-cni-node")),
}


@pytest.mark.parametrize("each", declarations(), ids=lambda each: each.name)
def test_flag_overrides_environment_for_every_setting(each: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    name = each.name
    text, value = VALUES[name]
    flag = "--" + name.replace("_", "-")
    assert getattr(parsed(flag, text), name) == value
    monkeypatch.setenv(name.upper(), text)
    assert getattr(parsed(), name) == value
    monkeypatch.setenv(name.upper(), "")
    assert getattr(parsed(flag, text), name) == value


def test_an_empty_variable_is_an_empty_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCLUDE_NAMESPACES", "")
    monkeypatch.setenv("HEALTH_ADDRESS", "")
    assert parsed().exclude_namespaces == ()
    assert parsed().health_address is None


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("node_name", "", "the name of a Kubernetes node"),
        ("node_name", "Worker", "the name of a Kubernetes node"),
        ("cni_bin_dir", "bin", "the absolute path of a directory"),
        ("cni_conf_dir", "", "the absolute path of a directory"),
        ("cni_conf_file_name", "../10-x.conflist", "a file name without a directory"),
        ("cni_conf_file_name", "10-x.yaml", "a file name without a directory"),
        ("plugin_file", "", "the path of a file"),
        ("agent_socket", "run/agent.sock", "an absolute path of at most 100 bytes, of printable ASCII"),
        ("agent_socket", '/run/a"b', "an absolute path of at most 100 bytes, of printable ASCII"),
        ("agent_socket", "/run/a\\b", "an absolute path of at most 100 bytes, of printable ASCII"),
        ("agent_socket", "/run/a&b", "an absolute path of at most 100 bytes, of printable ASCII"),
        ("agent_socket", "/run/ä", "an absolute path of at most 100 bytes, of printable ASCII"),
        ("agent_socket", "/run/a\n", "an absolute path of at most 100 bytes, of printable ASCII"),
        ("agent_socket", "/" + "x" * 100, "at most 100 bytes"),
        ("exclude_namespaces", "a,B", "names of namespaces"),
        ("redirect_backend", "NFT", "one of auto, nft, iptables-nft, iptables-legacy"),
        ("inbound_ports_default", "", "one of containerPorts, *"),
        ("ipv6", "yes", "one of auto, always, never"),
        ("repair_mode", "yes", "one of none, report, delete, redirect"),
        ("log_level", "loud", "one of panic, fatal, error, warn, info, debug"),
        ("health_address", "15014", "HOST:PORT"),
        ("health_address", "localhost:65536", "HOST:PORT"),
        ("health_address", "localhost:١", "HOST:PORT"),  # noqa: RUF001 - an Arabic digit, on purpose
        ("health_address", "::1:80", "HOST:PORT"),
        ("health_address", "[1.2.3.4]:80", "HOST:PORT"),
        ("chained", "no", "true or false"),
        ("mounts", "host", "the absolute path of a directory"),
        ("cni_bin_dir", "//", "and not /"),
        ("daemonset", "istio-cni-node", "NAMESPACE/NAME"),
        ("daemonset", "../x/y", "NAMESPACE/NAME"),
    ],
)
def test_a_bad_value_is_named_with_what_was_seen_and_expected(name: str, text: str, expected: str) -> None:
    flag = "--" + name.replace("_", "-")
    with pytest.raises(SettingError) as error:
        parse_settings({name: text})
    assert flag in str(error.value)
    assert "saw " in str(error.value)
    assert expected in str(error.value)
    with pytest.raises(click.BadParameter, match="saw "):
        parsed(flag, text)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(SettingError, match="cni_bin_dirs"):
        parse_settings({"cni_bin_dirs": "/x"})


def test_the_socket_is_the_first_key_of_the_entry() -> None:
    made = build_entry(parse_settings({"agent_socket": "/x/a.sock"}))
    assert next(iter(made)) == min(made) == "agentSocket"
    as_libcni_writes_it = json.dumps(made, sort_keys=True, separators=(",", ":"))
    assert as_libcni_writes_it.startswith('{"agentSocket":"/x/a.sock",')


def test_the_entry_has_what_istios_plugin_reads() -> None:  # in the middle of a rollback that is in cniBinDir (D9)
    given = {"agent_socket": "/x/run/a.sock", "exclude_namespaces": "a,b", "log_level": "info", "daemonset": "ns/name"}
    expected = {
        "cni_agent_run_dir": "/x/run",
        "exclude_namespaces": ["a", "b"],
        "plugin_log_level": "info",
        "pod_namespace": "ns",
    }
    for backend, native in {"auto": False, "iptables-nft": False, "iptables-legacy": False, "nft": True}.items():
        made = build_entry(parse_settings(given | {"redirect_backend": backend}))
        assert {key: made[key] for key in expected} == expected
        assert made["native_nftables"] is native
    assert build_entry(parse_settings())["pod_namespace"] == ""
