"""Network configurations as libcni reads them, and our entry in them. Pure."""
