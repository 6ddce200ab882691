"""The documentation is whole."""
