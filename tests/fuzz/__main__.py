"""`python -m tests.fuzz`: coverage-guided fuzzing of what pods and runtimes say (F32), by atheris."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"


def main() -> int:
    """Fuzz in processes of their own, and say how many inputs there were, or what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for which to go on at most (default: 60)")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs in all after which to end (default: 10^6)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one a processor")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps the inputs that reach something new")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args()
    if given.child:
        return _fuzz(rest)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        found = given.corpus or Path(temporary) / "corpus"
        found.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.fuzz", "--child", str(found), str(CORPUS)]
        command += [f"-max_total_time={given.seconds}", f"-runs={given.runs // given.processes}", "-max_len=1024"]
        command += ["-timeout=10", f"-dict={FOLDER / 'words.dict'}", f"-artifact_prefix={temporary}/", "-reload=0"]
        running = [_start([*command, f"-seed={number}"], temporary, number) for number in range(1, given.processes + 1)]
        try:
            statuses = [process.wait() for process in running]
        except KeyboardInterrupt:
            for process in running:
                process.terminate()
            raise
        logs = [(Path(temporary) / f"{number}.log").read_text() for number in range(1, given.processes + 1)]
        inputs = sum(int(each) for log in logs for each in re.findall(r"^Done (\d+) ", log, re.MULTILINE))
        inputs = inputs or sum(max(map(int, re.findall(r"^#(\d+)\s", log, re.MULTILINE)), default=0) for log in logs)
        if any(statuses):
            return _report(Path(temporary), logs)
        print(
            f"fuzz: {inputs} inputs in {given.processes} processes, nothing found; {len(list(found.iterdir()))} new paths"
        )
        return 0


def _start(command: list[str], folder: str, number: int) -> subprocess.Popen[str]:
    log = (Path(folder) / f"{number}.log").open("w")
    with log:
        return subprocess.Popen(command, cwd=FOLDER.parents[1], stdout=log, stderr=subprocess.STDOUT, text=True)


def _report(folder: Path, logs: list[str]) -> int:
    """Say what was found, and keep the input where the tests replay it."""
    print("\n".join(log[-4000:] for log in logs if "ERROR" in log or "Traceback" in log) or logs[0][-4000:])
    for crash in (*folder.glob("crash-*"), *folder.glob("timeout-*")):
        kept = CORPUS / f"{crash.name[:20]}.txt"
        kept.write_bytes(crash.read_bytes())
        print(f"fuzz: found by this input, kept as {kept} (correct the code, and the tests go on replaying it):")
        print(kept.read_bytes().decode("utf-8", "backslashreplace"))
    return 1


def _fuzz(arguments: list[str]) -> int:
    import atheris  # noqa: PLC0415 - the runner does without

    with atheris.instrument_imports(include=["plugin", "tests.fuzz.target"]):
        from tests.fuzz.target import once  # noqa: PLC0415
    atheris.Setup([sys.argv[0], *arguments], once)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("fuzz: stopped")
