"""Measurements of this project's speed and memory beside its peers; see benchmarks/README.md."""
