"""Untrusted YAML and JSON, read within bounds, and what it holds."""
