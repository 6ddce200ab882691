"""What the image's modules are compiled to."""

from __future__ import annotations

from importlib.machinery import SourcelessFileLoader
from importlib.util import cache_from_source, module_from_spec, spec_from_loader
from typing import TYPE_CHECKING

import pytest

from installer.image.tree import compiled

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.pure

SOURCE = '''"""A module."""
class Class:
    """A class."""
def empty():
    """A function."""
def function(value):
    """A function with an assert."""
    assert value, "asserted"
    return "a text"
'''


def test_modules_are_compiled_without_docstrings_but_with_asserts(tmp_path: Path) -> None:
    source = tmp_path / "usr" / "module.py"
    source.parent.mkdir()
    source.write_text(SOURCE)
    compiled(tmp_path)
    loader = SourcelessFileLoader("module", cache_from_source(str(source)))
    spec = spec_from_loader("module", loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    assert [each.__doc__ for each in (module, module.Class, module.empty, module.function)] == [None] * 4
    assert module.function(1) == "a text"
    assert module.function.__code__.co_filename == "/usr/module.py"
    with pytest.raises(AssertionError, match="asserted"):
        module.function(0)
