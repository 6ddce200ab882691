"""Which release of the agent this is. Nowhere else is it said: the distribution and the image take it from here."""

RELEASE = "0.1.0"


def release() -> str:
    """Give the release of the agent that runs."""
    return RELEASE
