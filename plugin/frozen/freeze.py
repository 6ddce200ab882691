"""Write the client and all that it may import as C arrays, and what the accelerator knows: `python3.11 freeze.py FOLDER`.

Run it with the interpreter whose minor version the library has, as marshalled code is good for one alone. Which
modules are needed is found by importing every module of the client in a fresh interpreter without site; tests run the
finished file on each of its paths in an empty root, as a module that is imported later would be missing only there.
"""

import subprocess
import sys
from marshal import dumps
from pathlib import Path

CLIENT = ("plugin.client", "plugin.fallback", "plugin.successor")
NEEDED_BY_THE_CORE = ("encodings", "encodings.aliases", "encodings.utf_8", "codecs", "io", "abc")
ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
sys.path.append(sys.argv[1])
for name in sys.argv[2:]:
    __import__(name)
for name, module in sys.modules.items():
    if getattr(module, "__file__", None):
        print(name, module.__file__, sep="\\t")
"""


def needed() -> dict[str, Path]:
    """Find the modules that have Python source, in a stable order."""
    command = [sys.executable, "-I", "-S", "-B", "-c", PROGRAM, str(ROOT), *NEEDED_BY_THE_CORE, *CLIENT]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = {name: Path(file) for name, _, file in (line.partition("\t") for line in sorted(lines))}
    if missing := [name for name in (*NEEDED_BY_THE_CORE, *CLIENT) if name not in found]:
        raise SystemExit(
            f"freeze: saw no source of {', '.join(missing)}, expected it beside {sys.executable}'s library"
        )
    return {name: path for name, path in found.items() if path.suffix == ".py"}


def modules() -> str:
    """Write the arrays and the table that CPython's frozen importer reads."""
    arrays, rows = [], []
    for name, path in needed().items():
        code = dumps(compile(path.read_text(), name, "exec", dont_inherit=True, optimize=2))
        array = "module_" + name.replace(".", "_")
        arrays.append(f"static const unsigned char {array}[] = {{{','.join(map(str, code))}}};")
        rows.append(f'    {{"{name}", {array}, {len(code)}, {int(path.name == "__init__.py")}, NULL}},')
    return "\n".join(
        ["#include <Python.h>", *arrays, "const struct _frozen istio_cni_modules[] = {", *rows, "    {0}};", ""]
    )


def constants() -> str:
    """Write the client's own constants, and its answers to VERSION, so that the accelerator cannot have others."""
    sys.path.append(str(ROOT))
    from plugin import client, version, wire  # noqa: PLC0415 - found from here on

    numbers = {"WIRE_VERSION": wire.VERSION, "SILENCE": client.SILENCE, "GIVE_UP": client.GIVE_UP}
    numbers |= {name: getattr(wire, name) for name in ("REQUEST", "WORKING", "RESULT", "HEAD")}
    questions = ("", *(f'{{"cniVersion":"{each}"}}' for each in version.SUPPORTED_VERSIONS))
    known = {
        question: version.info(each).decode() for question in questions if (each := version.asked(question.encode()))
    }
    answers = [f"    {{{_quoted(question)}, {_quoted(answer)}}}," for question, answer in known.items()]
    lines = [f"#define {name} {number}" for name, number in numbers.items()]
    return "\n".join(
        [*lines, "static const struct { const char *question, *answer; } versions[] = {", *answers, "};", ""]
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


(Path(sys.argv[1]) / "frozen.c").write_text(modules())
(Path(sys.argv[1]) / "constants.h").write_text(constants())
