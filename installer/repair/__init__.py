"""Running pods without redirect rules: found, proven, repaired."""
