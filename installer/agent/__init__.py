"""The node agent: its parts, wired, and what it reports."""
