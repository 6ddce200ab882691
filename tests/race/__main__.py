"""`make race`: our plugin and agent beside Istio's own, in turns; prints a table, and writes build/race.json."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.calls import machine
from tests.programs.build import is_built
from tests.programs.lots import ISTIO, KUBE
from tests.race.rows import Counts, measure
from tests.race.stage import Stage
from tests.race.table import caption, markdown, text
from tests.support.call import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.race.rows import Row

RUNS = 40  # a few minutes


def main() -> int:
    """Run it; the exit status is 0 also where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.race", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=RUNS, help=f"calls of each kind (default: {RUNS}); the rest in proportion"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error(f"--runs: saw {options.runs}, expected 1 or more")
    if os.geteuid() != 0:
        print("race: saw a user who is not root, expected root: network namespaces are made", file=sys.stderr)
        return 2
    for lot, target in ((KUBE, "kube"), (ISTIO, "istio")):
        if not is_built(lot):
            print(f"race: no {lot.title} in {lot.folder}; `make {target}` builds it", file=sys.stderr)
            return 2
    about = machine()
    folder = Path(tempfile.mkdtemp(prefix="race-"))
    try:
        rows = race(folder, Counts.of(options.runs), lambda what: print(f"race: {what}", file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        print("race: stopped", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    about |= {"load after": machine()["load"], "reference": ISTIO.title}
    print(f"{caption(about)}\n\n{markdown(rows) if options.markdown else text(rows)}")
    report = about | {"runs": options.runs, "rows": [row.report() for row in rows]}
    (ROOT / "build" / "race.json").write_text(json.dumps(report, indent=2) + "\n")
    print("race: written: build/race.json", file=sys.stderr)
    return 0


def race(folder: Path, counts: Counts, tell: Callable[[str], None]) -> list[Row]:
    """Run it in a folder, whose path is short.

    Raises:
        RuntimeError: if a contender did not do what is measured.
    """
    rows = []
    tell("starting the API server and both agents")
    with Stage(folder, max(counts.together)) as stage:
        for row in measure(stage, counts):
            tell(f"{row.what}: {row.ratio:.3f} of the faster reference")
            rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
