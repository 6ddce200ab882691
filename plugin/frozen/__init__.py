"""How `plugin.client` becomes one static executable that needs nothing of the host."""
