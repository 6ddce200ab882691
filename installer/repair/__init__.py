"""Finding, proving and repairing running pods without redirect rules."""
