"""How the image's files are chosen; nothing of it is in the image."""
