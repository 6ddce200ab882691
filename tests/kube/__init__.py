"""Kubernetes itself, built from its published modules for the tests."""
