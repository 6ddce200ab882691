"""Conflist surgery and the choice of the file: pure functions, so no file is touched here."""
