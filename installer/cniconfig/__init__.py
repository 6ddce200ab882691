"""Network configurations as libcni reads them, and the plugin's entry in them. Pure."""
