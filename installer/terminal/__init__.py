"""Text for a terminal: printable, in tables, in ages."""
