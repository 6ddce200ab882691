"""`python -m tests.fuzz.accelerator`: libFuzzer with ASan and UBSan on the C that answers the usual call (D13, F32).

What the tests replay is in `accelerator/`. What is found is kept there and shown; `--merge` adds what reaches something new.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
TREE = FOLDER.parents[1]
CORPUS = FOLDER / "accelerator"
CLANG = "/usr/bin/clang-14"
LONGEST = 2048  # bytes of an input
OPTIONS = ("-g", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE")
SANITIZERS = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")


def compiled(folder: Path, tree: Path = TREE) -> Path:
    """Compile the target."""
    program = folder / "accelerator"
    includes = (f"-I{TREE / 'build'}", f"-I{tree / 'plugin' / 'frozen'}")
    source = tree / "tests" / "fuzz" / "accelerator.c"
    subprocess.run([CLANG, *OPTIONS, *SANITIZERS, *includes, "-o", str(program), str(source)], check=True)
    return program


def fuzz(program: Path, runs: int, found: Path) -> subprocess.CompletedProcess[str]:
    """Run it on the corpus and on so many new inputs; what ends it is kept in a folder."""
    found.mkdir(exist_ok=True)
    seed = random.randrange(1, 2**31)  # noqa: S311 - another one each time: what one run does not meet, another may
    options = [f"-runs={runs}", f"-max_len={LONGEST}", f"-artifact_prefix={found}/", "-timeout=10", f"-seed={seed}"]
    command = [str(program), *options, str(found), str(CORPUS)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def main() -> int:
    """Fuzz, and say how many inputs there were, or what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.accelerator", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs (default: 10^6)")
    parser.add_argument("--merge", action="store_true", help="add to the corpus what reaches something new")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        program, found = compiled(Path(temporary)), Path(temporary) / "found"
        done = fuzz(program, given.runs, found)
        if done.returncode:
            for crash in (path for path in found.iterdir() if "-" in path.name):
                (CORPUS / crash.name[:20]).write_bytes(crash.read_bytes())
                print(f"fuzz: found by this input, kept as {CORPUS / crash.name[:20]}: {crash.read_bytes()!r}")
            print(done.stderr[-4000:])
            return 1
        if given.merge:
            subprocess.run([str(program), "-merge=1", str(CORPUS), str(found)], check=True, capture_output=True)
        print(f"fuzz: {inputs(done)} inputs of the accelerator, nothing found")
    return 0


def inputs(done: subprocess.CompletedProcess[str]) -> int:
    """Say how many inputs were run."""
    counted = re.search(r"^Done (\d+) runs", done.stderr, re.MULTILINE)
    return int(counted[1]) if counted else 0


if __name__ == "__main__":
    sys.exit(main())
