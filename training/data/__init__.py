"""Data sets: found, checked, described, planned for and prepared, whatever layout they come in."""
