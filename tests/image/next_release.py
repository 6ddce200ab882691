"""The release after this one, as it may be (F31): its protocol has another version; its code, its plugin file and its image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from installer.version import RELEASE
from plugin import wire
from tests.image import contents
from tests.image.build import HERE, HUB, archive
from tests.support import images

NEXT = f"{RELEASE}-next"
NAME = f"{HUB}/install-cni:{NEXT}"

_EDITED = {Path("plugin/wire.py"): f"VERSION = {wire.VERSION + 1}", Path("installer/version.py"): f'RELEASE = "{NEXT}"'}
_PACKAGES = Path("usr/local/lib/python3.11/dist-packages")
_PYTHON = "/usr/bin/python3.11"  # the image's, too


def source(folder: Path) -> Path:
    """Copy plugin and agent into a folder, make them those of the next release, and return the folder."""
    for package in ("plugin", "installer"):
        shutil.copytree(HERE / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, line in _EDITED.items():
        constant = line.partition(" ")[0]
        edited, lines = re.subn(rf"^{constant} = .*$", line, (folder / name).read_text(), flags=re.MULTILINE)
        assert lines == 1, f"{name}: saw {lines} lines that set {constant}, expected one"
        (folder / name).write_text(edited)
    return folder


def image(folder: Path) -> Path:
    """Build its image into a docker archive in a folder: this release's image, with what differs laid over it."""
    code = source(folder / "source")
    files = {f"{_PACKAGES / name}": code / name for name in _EDITED}
    compile_all = (_PYTHON, "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash")  # as the Dockerfile does
    subprocess.run([*compile_all, *(code / name for name in _EDITED)], check=True)
    for name in _EDITED:
        cached = Path(name.parent, "__pycache__", f"{name.stem}.cpython-311.pyc")
        files[f"{_PACKAGES / cached}"] = code / cached
    files["opt/istio-cni/istio-cni"] = _plugin(code)
    layer, target = folder / "layer", folder / "image.tar"
    digest = images.write_layer(layer, files)
    with tarfile.open(archive()) as below, tarfile.open(target, "w") as tar:
        config = contents.config(below)
        config["rootfs"]["diff_ids"].append(f"sha256:{digest}")
        del config["history"]
        layers = list[str]()
        for blob in contents.blobs(below):
            layers.append(f"{len(layers)}.layer")
            images.add(tar, layers[-1], blob)
        tar.add(layer, "own.layer")
        images.add(tar, "config.json", json.dumps(config).encode())
        manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": [*layers, "own.layer"]}]
        images.add(tar, "manifest.json", json.dumps(manifest).encode())
    return target


def _plugin(code: Path) -> Path:
    """Build the plugin file from its code, as the Dockerfile does."""
    for name in ("Makefile", "tests/setup-packages"):
        (code / name).parent.mkdir(exist_ok=True)
        shutil.copy2(HERE / name, code / name)
    (code / "build").mkdir()
    subprocess.run(["/usr/bin/touch", "-d", "2100-01-01", code / "build" / ".packages"], check=True)
    subprocess.run(["/usr/bin/make", "--silent", f"--directory={code}", "plugin"], check=True)
    return code / "build" / "istio-cni"
