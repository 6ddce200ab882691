"""Which release of the agent this is."""

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """Give the installed distribution's version."""
    try:
        return version("istio-cni")
    except PackageNotFoundError:
        return "unknown (run from a source tree that is not installed)"
