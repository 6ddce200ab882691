"""The release of the agent: the only place that defines it; the distribution and the image read it from here."""

RELEASE = "0.1.0"


def release() -> str:
    """Return the release of the running agent."""
    return RELEASE
