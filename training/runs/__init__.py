"""A run as a folder: what it writes while it goes, its curves, its report, its comparison."""
