"""The rendered text of a few redirects, so that a change of it is seen in review; packets prove it.

After a change on purpose: `python -m tests.redirect.test_goldens` rewrites them.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from plugin import iptables, nft
from plugin.redirect import Family, Mode, Redirect
from plugin.rules import ruleset
from plugin.values import Interface, Port

pytestmark = pytest.mark.pure

FOLDER = Path(__file__).with_name("goldens")
OPTIONS = Redirect(
    mode=Mode.TPROXY,
    include_inbound_ports=(Port(80), Port(8080)),
    include_outbound=(ipaddress.ip_network("10.0.0.0/8"),),
    exclude_outbound=(ipaddress.ip_network("10.1.0.0/16"),),
    include_outbound_ports=(Port(443),),
    exclude_interfaces=(Interface("net1"),),
    reroute_interfaces=(Interface("k6t-eth0"),),
    dns_capture=True,
    drop_invalid=True,
)
BOTH = (Family.V4, Family.V6)
GOLDENS = {
    "defaults.nft": nft.listing(ruleset(Redirect(families=BOTH))),
    "defaults.ip6tables": iptables.transaction(ruleset(Redirect(families=BOTH)), Family.V6, ""),
    "tproxy.nft": nft.listing(ruleset(OPTIONS)),
    "tproxy.iptables": iptables.transaction(ruleset(OPTIONS), Family.V4, ""),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_the_rendered_text_matches_the_golden_files(name: str) -> None:
    assert GOLDENS[name] == (FOLDER / name).read_text()


if __name__ == "__main__":
    for name, text in GOLDENS.items():
        (FOLDER / name).write_text(text)
