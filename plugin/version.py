"""The CNI versions that the plugin supports, and the answer to VERSION without a JSON parser.

It imports nothing: runtimes request the versions often, and need not wait for a parser to load.
"""

SUPPORTED_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = SUPPORTED_VERSIONS[-1]


def info(version: str) -> bytes:
    """Build the answer to VERSION, in one of the supported versions (CNI spec 1.1, section 2)."""
    supported = ", ".join(['"' + each + '"' for each in SUPPORTED_VERSIONS])
    return ('{"cniVersion": "' + version + '", "supportedVersions": [' + supported + "]}").encode()


def asked(stdin: bytes) -> str | None:
    """Return the requested supported version, if stdin has libcni's form; None: stdin must be parsed."""
    if not stdin:
        return NEWEST
    for version in SUPPORTED_VERSIONS:
        if stdin == b'{"cniVersion":"' + version.encode() + b'"}':
            return version
    return None
