"""The node agent: installs the plugin, keeps it there, knows the node's pods and serves the plugin's requests."""
