"""Tags and hubs of an image as people write them: those that chart and resource take, and those that both refuse."""

from __future__ import annotations

DIGEST = "sha256:" + "0123456789abcdef" * 4

IMAGES = {  # by hub and tag
    ("", "1"): "install-cni:1",
    ("h", "1"): "h/install-cni:1",
    ("h:5000/a/", "1.4.0"): "h:5000/a/install-cni:1.4.0",
    ("[2001:db8::1]:5000", 14): "[2001:db8::1]:5000/install-cni:14",
    ("h/a_b", "_" + "a" * 127): "h/a_b/install-cni:_" + "a" * 127,
    ("", f"@{DIGEST}"): f"install-cni@{DIGEST}",
    ("h/", f"@{DIGEST}"): f"h/install-cni@{DIGEST}",
    ("h", f"1.4.0@{DIGEST}"): f"h/install-cni:1.4.0@{DIGEST}",
}

WRONG_TAGS: dict[str, str | int] = {
    "upper-case digits": f"@sha256:{'A' * 64}",
    "upper-case algorithm": f"@SHA256:{'a' * 64}",
    "one digit too few": f"1@{DIGEST[:-1]}",
    "one digit too many": f"1@{DIGEST}0",
    "no hexadecimal digit": f"@{DIGEST[:-1]}g",
    "two digests": f"@{DIGEST}@{DIGEST}",
    "two at signs": f"1@@{DIGEST}",
    "another algorithm": f"@sha512:{'0' * 128}",
    "no algorithm": f"@{'0' * 64}",
    "no at sign": DIGEST,
    "an empty digest": "1@",
    "an at sign alone": "@",
    "an algorithm alone": "@sha256:",
    "a digest before the tag": f"@{DIGEST}:1",
    "a colon before the tag": ":1",
    "a colon before the digest": f":@{DIGEST}",
    "two tags": "1:2",
    "a space before": " 1",
    "a space within": f"1 @{DIGEST}",
    "a space after": f"@{DIGEST} ",
    "a line end": f"@{DIGEST}\n",
    "a path": "a/b",
    "a dash first": "-1",
    "a number below zero": -1,
    "129 characters": "a" * 129,
}

WRONG_HUBS = {
    "a digest": f"h/a@{DIGEST}",
    "a tag": "docker.io/istio:1.4",
    "a tag of digits": "docker.io/istio:14",
    "a tag after the port": "h:5000/a:1",
    "a tag without a path": "istio:1.4",
    "an empty port": "h:",
    "an address of the web": "https://registry.example",
    "a space": "h/a b",
    "a line end": "h\n",
    "a root": "/",
    "two slashes": "h//a",
    "an upper-case path": "h/Mesh",
}
