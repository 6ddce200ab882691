"""Lists of the kernel: one that ends in an error is no list."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from plugin.netlink import Netlink
from plugin.rtnetlink import GETROUTE, RTA_TABLE

pytestmark = pytest.mark.kernel

SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12
NO_TABLE = 123456789  # of routes


def test_a_list_that_the_kernel_ends_with_an_error_is_an_error() -> None:
    body = struct.pack("B11x", socket.AF_INET) + struct.pack("HHI", 8, RTA_TABLE, NO_TABLE)
    with Netlink(socket.NETLINK_ROUTE) as kernel:
        kernel._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        with pytest.raises(OSError, match="listing routes") as error:
            list(kernel.dump(GETROUTE, body, "listing routes"))
    assert error.value.errno == errno.ENOENT
