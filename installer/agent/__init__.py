"""The node agent: its parts, their wiring, and its reports."""
