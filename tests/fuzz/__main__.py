"""`python -m tests.fuzz`: coverage-guided fuzzing of what pods and runtimes say (F32), by atheris.

What reaches something new is kept with `--corpus DIR`; `--merge DIR` takes of it into the corpus that the tests replay what
that does not reach yet. What is found is kept there, too, and shown.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
LONGEST = 1024  # bytes of an input


def main() -> int:
    """Fuzz in processes of their own, and say how many inputs there were, or what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for which to go on at most (default: 60)")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs in all after which to end (default: 10^6)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one a processor")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps the inputs that reach something new")
    parser.add_argument("--merge", type=Path, help="take such a folder's into the corpus that the tests replay")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args()
    if given.child:
        return _fuzz(rest)
    if given.merge:
        return _merge(given.merge)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        found = (given.corpus or Path(temporary) / "corpus").resolve()
        return _run(Path(temporary), found, given.seconds, given.runs, given.processes)


def _run(temporary: Path, found: Path, seconds: int, runs: int, processes: int) -> int:
    found.mkdir(parents=True, exist_ok=True)
    before = len(list(found.iterdir()))
    command = [*_child(found, CORPUS), f"-max_total_time={seconds}", f"-runs={runs // processes}", "-timeout=10"]
    command += [f"-dict={FOLDER / 'words.dict'}", f"-artifact_prefix={temporary}/", "-reload=0"]
    logs = [temporary / f"{number}.log" for number in range(processes)]
    # Another seed each time: what one run does not meet, another may. The input that is found is all that is needed.
    running = [_start([*command, f"-seed={random.randrange(1, 2**31)}"], log) for log in logs]  # noqa: S311
    try:
        statuses = [process.wait() for process in running]
    except KeyboardInterrupt:
        for process in running:
            process.terminate()
        raise
    texts = [log.read_text(errors="replace") for log in logs]
    if any(statuses):
        return _report(temporary, texts)
    inputs = sum(int(each) for text in texts for each in re.findall(r"^Done (\d+) ", text, re.MULTILINE))
    new = len(list(found.iterdir())) - before
    print(f"fuzz: {inputs} inputs in {processes} processes, nothing found; {new} of them reach something new")
    return 0


def _child(*folders: Path) -> list[str]:
    return [sys.executable, "-m", "tests.fuzz", "--child", *map(str, folders), f"-max_len={LONGEST}"]


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as output:
        return subprocess.Popen(command, cwd=FOLDER.parents[1], stdout=output, stderr=subprocess.STDOUT)


def _report(folder: Path, logs: list[str]) -> int:
    """Say what was found, and keep the input where the tests replay it."""
    print("\n".join(log[-4000:] for log in logs if "ERROR" in log or "Traceback" in log) or logs[0][-4000:])
    for crash in sorted(each for kind in ("crash", "timeout", "oom") for each in folder.glob(f"{kind}-*")):
        kept = CORPUS / f"{crash.name[:20]}.txt"
        kept.write_bytes(crash.read_bytes())
        print(f"fuzz: found by this input, kept as {kept} (correct the code, and the tests go on replaying it):")
        print(readable(kept.read_bytes()))
    return 1


def readable(data: bytes) -> str:
    """Show an input line by line; what does not print as itself is escaped."""
    lines = data.decode("utf-8", "backslashreplace").split("\n")
    return "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)


def _merge(folder: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        log = Path(temporary) / "log"
        if _start([*_child(CORPUS, folder.resolve()), "-merge=1"], log).wait():
            return _report(Path(temporary), [log.read_text(errors="replace")])
    added = [each for each in CORPUS.iterdir() if not each.suffix]  # libFuzzer names them by their hash
    for each in added:
        each.rename(CORPUS / f"found-{each.name[:10]}.txt")
    print(f"fuzz: {len(added)} taken into {CORPUS}")
    return 0


def _fuzz(arguments: list[str]) -> int:
    import atheris  # noqa: PLC0415 - the runner does without

    with atheris.instrument_imports(include=["plugin"]):
        from tests.fuzz.target import once  # noqa: PLC0415
    from tests.fuzz.mutator import mutator  # noqa: PLC0415 - it imports what is to be instrumented

    def libfuzzers_own(data: bytes, largest: int) -> bytes:
        changed: bytes = atheris.Mutate(data, largest)  # looked up each time, as Fuzz() sets it
        return changed

    itself = f"{sys.executable} -m tests.fuzz --child"  # libFuzzer runs itself again where it merges
    atheris.Setup([itself, *arguments], once, custom_mutator=mutator(libfuzzers_own))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("fuzz: stopped")
