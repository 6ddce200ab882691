"""Text for a terminal: escaped, in tables, with ages."""
