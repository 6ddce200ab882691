"""How often the same may be done or said."""
