"""`install-cni explain` and `install-cni trace` as a user calls them."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import click
import pytest
import yaml
from click.testing import CliRunner

from installer.main import main
from plugin import nft
from plugin.redirect import Redirect
from plugin.rules import ruleset
from plugin.values import Port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.pure

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata:
      annotations: {sidecar.istio.io/status: '{}', traffic.sidecar.istio.io/excludeOutboundPorts: "22, 5432"}
    spec:
      initContainers: [{name: migrate}]
      containers: [{name: app, ports: [{containerPort: 8080}]}, {name: istio-proxy}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: shop}
spec:
  containers: [{name: app}]
"""


def install_cni(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Call it in this process, which has imported it already; `test_terminal` has it in processes of its own."""
    environment = {"HOME": "/nowhere", "KUBECONFIG": None}
    done = CliRunner().invoke(
        main, words, input=given, env=environment, prog_name="install-cni", catch_exceptions=False
    )
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "web.yaml"
    path.write_text(DEPLOYMENT)
    return str(path)


def test_the_table_shows_decision_and_reason(file: str) -> None:
    done = install_cni("explain", "-f", file)
    assert done.returncode == 0, done.stderr
    assert "shop/web (Deployment): REDIRECT: it is a meshed pod\n" in done.stdout
    assert "traffic.sidecar.istio.io/excludeOutboundPorts     22, 5432 (annotation)\n" in done.stdout
    assert "  ! init container migrate runs before the sidecar is up" in done.stdout
    assert "shop/plain: PASS by row never-injected: never injected" in done.stdout
    assert done.stderr == "skipped: Service web creates no pods\n"
    (warning,) = (line for line in done.stdout.splitlines() if line.startswith("  ! init container migrate"))
    assert len(warning) > 100, "in a pipe a warning stays on one line, for grep"


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_json_output_is_a_list(file: str, output: str) -> None:
    done = install_cni("explain", "-f", "-", "-o", output, given=DEPLOYMENT)
    web, plain = json.loads(done.stdout) if output == "json" else yaml.safe_load(done.stdout)
    assert (web["namespace"], web["name"], web["kind"], web["decision"]) == ("shop", "web", "Deployment", "redirect")
    assert {
        "name": "exclude_outbound_ports",
        "key": "traffic.sidecar.istio.io/excludeOutboundPorts",
        "value": [22, 5432],
        "origin": "annotation",
    } in web["parameters"]
    assert len(web["warnings"]) == 1
    assert (plain["decision"], plain["row"], plain["parameters"]) == ("pass", "never-injected", [])


def test_rules_are_those_that_the_agent_writes(file: str) -> None:
    redirect = Redirect(include_inbound_ports=(Port(8080),), exclude_outbound_ports=(Port(22), Port(5432)))
    done = install_cni("explain", "-f", file, "-o", "rules")
    assert f"# shop/web: redirect\n{nft.listing(ruleset(redirect))}" in done.stdout
    done = install_cni(
        "explain", "-f", file, "-o", "rules", "--redirect-backend", "iptables-legacy", "--ipv6", "always"
    )
    assert "# iptables-restore --noflush\n*nat\n" in done.stdout
    assert "# ip6tables-restore --noflush\n*nat\n" in done.stdout


@pytest.mark.parametrize(("output", "begins"), [("svg", "<svg "), ("dot", "digraph ")])
def test_pictures_are_written(file: str, output: str, begins: str) -> None:
    done = install_cni("explain", "-f", file, "-o", output)
    assert done.returncode == 0, done.stderr
    assert begins in done.stdout[:200]
    assert "15001" in done.stdout


def test_a_pod_that_cannot_start_is_shown_and_fails_the_command(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(DEPLOYMENT.replace("22, 5432", "ssh"))
    done = install_cni("explain", "-f", str(path))
    assert done.returncode == 1
    assert (
        "shop/web (Deployment): ERROR: traffic.sidecar.istio.io/excludeOutboundPorts: saw 'ssh', expected"
        in done.stdout
    )
    assert "shop/plain: PASS by row" in done.stdout


def test_explain_uses_the_agents_settings(file: str) -> None:
    done = install_cni("explain", "-f", file, "--exclude-namespaces", "shop")
    assert "PASS by row excluded: namespace shop is excluded by --exclude-namespaces\n" in done.stdout
    assert "  excludeNamespaces  shop (by --exclude-namespaces)\n" in done.stdout
    done = install_cni("explain", "-f", file, "--inbound-ports-default", "*", "--pod-ip", "fd00::1")
    assert "includeInboundPorts      * (setting)\n" in done.stdout
    assert "IPv4, IPv6 (addresses)\n" in done.stdout


HOSTILE = """
kind: Pod
metadata: {name: "x\\nflush ruleset", annotations: {sidecar.istio.io/status: "{}"}}
spec: {containers: [{name: istio-proxy}, {name: app}]}
---
kind: Pod
metadata: {name: y, annotations: {sidecar.istio.io/status: "{}"}}
spec: {containers: [{name: istio-proxy, args: [proxy, "r\\nflush ruleset"]}, {name: app}]}
"""


def test_text_of_a_manifest_never_becomes_a_rule() -> None:
    done = install_cni("explain", "-f", "-", "-o", "rules", given=HOSTILE)
    assert done.returncode == 0, done.stderr
    assert "# default/x\\nflush ruleset: redirect\n" in done.stdout
    assert "flush ruleset" not in [line.strip()[:13] for line in done.stdout.splitlines()]


def test_an_irrelevant_field_of_a_wrong_type_is_tolerated() -> None:
    odd = DEPLOYMENT.replace("{name: istio-proxy}", "{name: istio-proxy, securityContext: {capabilities: [1]}}")
    tproxy = odd.replace(
        "sidecar.istio.io/status: '{}'", "sidecar.istio.io/status: '{}', sidecar.istio.io/interceptionMode: TPROXY"
    )
    done = install_cni("explain", "-f", "-", given=tproxy)
    assert done.returncode == 0, done.stderr
    assert "under TPROXY istio-proxy needs the capability NET_ADMIN" in done.stdout


BAD = {
    "neither": ((), "", 2, "expected either -f FILE or: pod NAMESPACE/NAME"),
    "both": (("pod", "a/b", "-f", "x"), "", 2, "expected either -f FILE or: pod NAMESPACE/NAME"),
    "no such file": (("-f", "/nowhere/x.yaml"), "", 1, "/nowhere/x.yaml: No such file or directory"),
    "a folder": (("-f", "/tmp"), "", 1, "/tmp: Is a directory"),  # noqa: S108
    "nothing": (("-f", "-"), "", 1, "-: saw no pod and no resource that creates pods, expected one"),
    "no manifest": (("-f", "-"), "[1, 2]", 1, "-: line 1: saw kind [1, 2], expected Pod"),
    "no YAML": (("-f", "-"), "a: b: c", 1, "-: line 1: mapping values are not allowed"),
    "no JSON": (("-f", "-"), '{"kind":', 1, "-: line 1: Expecting value, expected JSON"),
    "a wrong type": (
        ("-f", "-"),
        "kind: Pod\nmetadata:\n  name: x\n  annotations:\n    a: 1\n",
        1,
        "-: line 5: metadata.annotations.a: saw 1, expected a string (quote it)",
    ),
    "no name of a pod": (("pod", "web"), "", 1, "saw 'web', expected NAMESPACE/NAME of a pod"),
    "no such backend": (("-f", "-", "--redirect-backend", "ebpf"), "", 2, "saw 'ebpf', expected one of auto, nft"),
    "two namespaces": (("pod", "a/b", "-n", "c"), "", 2, "saw a/b and --namespace c, expected one of them"),
    "no use for it": (("-f", "-", "-n", "c"), "", 2, "saw --namespace with -f, expected one of them"),
    "no cluster": (
        ("pod", "a/b"),
        "",
        1,
        "no /nowhere/.kube/config and not in a pod, expected a kubeconfig: give --kubeconfig FILE, or set KUBECONFIG",
    ),
}


@pytest.mark.parametrize("name", ["kubeconfig", "context"])
def test_explain_takes_the_login_options_of_status(name: str) -> None:
    taken = [{each.name: each for each in main.commands[of].params}[name] for of in ("explain", "trace", "status")]
    said = [(each.opts, each.help, each.envvar, vars(each.type)) for each in taken if isinstance(each, click.Option)]
    assert said == [said[0]] * 3


@pytest.mark.parametrize("case", BAD)
def test_unexplainable_input_is_a_one_line_error(case: str) -> None:
    words, given, status, said = BAD[case]
    done = install_cni("explain", *words, given=given)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_trace_walks_a_packet_through_the_rules(file: str) -> None:
    done = install_cni("trace", "shop/web", "-f", file, "--to", "10.96.0.1:443", "--pod-ip", "10.0.0.5")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "shop/web: TCP from 10.0.0.5 to 10.96.0.1:443, sent by uid 1000, gid 1000"
    assert lines[1] == "> nat    OUTPUT            jump ISTIO_OUTPUT"
    assert lines[2] == "  nat    ISTIO_OUTPUT      tcp dport 22 return"
    assert lines[-2] == "> nat    ISTIO_REDIRECT    meta l4proto tcp redirect to :15001"
    assert lines[-1].startswith("The packet arrives at port 15001 of the sidecar")


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        (("--to", "10.96.0.1:443", "--uid", "1337"), "passes unchanged"),
        (("--to", "10.96.0.1:22"), "passes unchanged"),
        (("--to", "10.96.0.1:53", "--udp"), "passes unchanged"),
        (("--to", "10.0.0.5:8080"), "arrives at port 15006"),
        (("--to", "10.0.0.5:9090"), "passes unchanged"),
        (("--to", "10.0.0.5:8080", "--uid", "1337"), "arrives at port 15006"),
        (("--to", "10.7.7.7:8080", "--inbound"), "arrives at port 15006"),
        (("--to", "[fd00::1]:443"), "IPv6 is not redirected for this pod"),
    ],
)
def test_trace_reports_where_a_packet_arrives(file: str, words: tuple[str, ...], ends: str) -> None:
    done = install_cni("trace", "shop/web", "-f", file, "--pod-ip", "10.0.0.5", *words)
    assert done.returncode == 0, done.stderr
    assert ends in done.stdout


def test_a_packet_of_a_pod_without_rules_passes_unchanged(file: str) -> None:
    done = install_cni("trace", "shop/plain", "-f", file, "--to", "10.96.0.1:443")
    assert done.stdout.splitlines()[0].startswith("shop/plain: PASS: never injected")
    assert "the pod has no rules" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "fd00::1"), "saw --from fd00::1 and --to 10.96.0.1, expected addresses of one family"),
        (("--inbound", "--uid", "1337"), "saw --inbound with --uid or --gid, expected one"),
    ],
)
def test_an_impossible_packet_is_refused(file: str, words: tuple[str, ...], said: str) -> None:
    done = install_cni("trace", "shop/web", "-f", file, "--to", "10.96.0.1:443", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())


def test_the_namespace_of_a_pod_in_a_file_may_be_given_by_itself(file: str) -> None:
    done = install_cni("trace", "web", "-n", "shop", "-f", file, "--to", "10.96.0.1:443")
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "shop/web"), done.stderr


def test_a_pod_that_is_not_in_the_file_is_named(file: str) -> None:
    done = install_cni("trace", "shop/other", "-f", file, "--to", "10.96.0.1:443")
    assert done.returncode == 1
    assert "saw shop/web, shop/plain, expected shop/other" in done.stderr
