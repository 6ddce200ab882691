"""Lays out the files that the image takes from Debian: `python3.11 tree.py FOLDER`, on that release of Debian.

These are Python's standard library, both variants of iptables with their extensions, libnftables, and the libraries that they
and the packages already in the folder are linked with. Single files are copied, not whole packages; of each package that a
file comes from, its licence and its record are kept, `/var/lib/dpkg/status.d/<name>`, where vulnerability scanners look.
"""

from __future__ import annotations

import ast
import marshal
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LIBRARIES = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH"))
PYTHON = Path("/usr/lib/python3.11")
FOLDERS = ("dev", "etc", "proc", "root", "run", "sys", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "var")
GENERATED = [Path("/usr/local/lib/python3.11/dist-packages/kubernetes")]  # 33 MB, for the most part of docstrings
LINKS = {name: f"usr/{name}" for name in ("bin", "lib", "lib64", "sbin")} | {"var/run": "/run"}

# Modules of the standard library that need further libraries, or that only developers use.
_LEFT_OUT = re.compile(
    r"/(?:__pycache__|config-3[^/]*|curses|dbm|distutils|ensurepip|idlelib|lib2to3|pydoc_data|sqlite3|test|tkinter|venv)/"
    r"|/sitecustomize\.py"
    r"|/lib-dynload/(?:_crypt|_ctypes_test|_curses|_dbm|_sqlite3|_test|_xxtest|nis|ossaudiodev|readline|xxlimited)"
)
_IPTABLES = re.compile(r"(?:ip6?tables-(?:nft|legacy)|xtables-(?:nft|legacy)-multi).*")
_EXTENSION = re.compile(r"lib(?:xt|ipt|ip6t)_.*\.so")
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_UNCHECKED = (1).to_bytes(4, "little")
_LINKED = re.compile(r"^\t(?:\S+ => )?(/\S+) ", re.MULTILINE)


def chosen() -> Iterator[Path]:
    """Name the files that the image needs, without the libraries that they are linked with."""
    yield Path("/usr/bin/python3.11")
    yield from (each for each in PYTHON.rglob("*") if each.is_file() and not _LEFT_OUT.search(str(each)))
    yield LIBRARIES / "libnftables.so.1"
    yield Path("/etc/protocols")  # from there nftables has the names by which it lists them: without it, tcp is 6
    yield from (each for each in Path("/usr/sbin").iterdir() if _IPTABLES.fullmatch(each.name))
    yield from (each for each in (LIBRARIES / "xtables").iterdir() if _EXTENSION.fullmatch(each.name))


def linked(files: Iterable[Path]) -> Iterator[Path]:
    """Name the libraries and the loader that programs and libraries are linked with."""
    for file in files:
        with file.open("rb") as opened:
            if opened.read(4) != b"\x7fELF":
                continue
        output = subprocess.run(["/usr/bin/ldd", file], capture_output=True, text=True, check=False).stdout
        if missing := re.findall(r"(\S+) => not found", output):
            raise SystemExit(f"{file} is linked with {', '.join(missing)}, which is missing: install its package")
        yield from (_below_usr(Path(each)) for each in _LINKED.findall(output))


def _below_usr(path: Path) -> Path:
    """Resolve /lib and the like, which are links."""
    return Path("/usr", *path.parts[1:]) if path.parts[1] in LINKS else path


def with_targets(files: Iterable[Path]) -> Iterator[Path]:
    """Name files, and the targets of the links among them."""
    for file in files:
        yield file
        yield file.resolve()


def copy(files: Iterable[Path], tree: Path) -> None:
    """Copy files to the same paths below a folder; links stay links."""
    for file in files:
        copied = tree / file.relative_to("/")
        copied.parent.mkdir(parents=True, exist_ok=True)
        if not copied.is_symlink():
            shutil.copy2(file, copied, follow_symlinks=False)


def packages(files: Iterable[Path]) -> list[str]:
    """Name the packages that files come from; dpkg records some under a path from before /lib became a link."""
    names = {each for file in files for each in (str(file), str(file).removeprefix("/usr"))}
    command = ["/usr/bin/dpkg-query", "--search", *sorted(names)]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # 1: not each name is known
    return sorted({line.partition(":")[0] for line in output.splitlines() if not line.startswith("diversion ")})


def record(package: str, tree: Path) -> None:
    """Copy a package's licence and its record."""
    licence = Path("usr/share/doc", package, "copyright")
    (tree / licence).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path("/") / licence, tree / licence)
    command = ["/usr/bin/dpkg-query", "--status", package]
    records = tree / "var/lib/dpkg/status.d"
    records.mkdir(parents=True, exist_ok=True)
    (records / package).write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def compiled(tree: Path) -> None:
    """Compile all modules, as their directories are read-only at run time; delete the sources of generated ones."""
    for package in (tree / each.relative_to("/") for each in GENERATED):
        for source in package.rglob("*.py"):
            _compile(source, source.with_suffix(".pyc"), tree)
            source.unlink()
    for source in (tree / "usr").rglob("*.py"):
        _compile(source, Path(cache_from_source(str(source))), tree)


def _compile(source: Path, target: Path, tree: Path) -> None:
    """Compile a module without its docstrings, which would be 2 MB of an agent's memory; asserts stay.

    The format is that of PEP 552, with a hash that nobody checks.
    """
    content = source.read_bytes()
    module = ast.parse(content)
    for each in ast.walk(module):
        if isinstance(each, _DOCUMENTED) and ast.get_docstring(each, clean=False) is not None:
            each.body[:1] = [] if len(each.body) > 1 else [ast.copy_location(ast.Pass(), each.body[0])]
    code = compile(module, f"/{source.relative_to(tree)}", "exec", dont_inherit=True, optimize=0)
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(MAGIC_NUMBER + _UNCHECKED + source_hash(content) + marshal.dumps(code))


def main(tree: Path) -> None:
    """Lay them out; files that are already in the folder stay."""
    for name in FOLDERS:
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    for name, target in LINKS.items():
        (tree / name).symlink_to(target)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/usr/sbin/nologin\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    shutil.copyfile("/etc/os-release", tree / "etc/os-release")

    ours = [each for each in tree.rglob("*.so*") if each.is_file() and not each.is_symlink()]
    wanted = set(chosen())
    libraries = {each for each in linked(wanted | set(ours)) if not each.is_relative_to(tree)}
    files = set(with_targets(wanted | libraries))
    copy(sorted(files), tree)
    for package in packages(files):
        record(package, tree)
    subprocess.run(["/usr/bin/strip", "--strip-unneeded", *ours], check=True)
    compiled(tree)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
