"""Writes the files anew, and names those that it has changed."""

from tests.generate.files import ROOT, generate

for path, made in generate().items():
    if path.read_text() != made:
        path.write_text(made)
        print(f"generate: {path.relative_to(ROOT)}")
