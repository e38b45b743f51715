"""The models that can be run: a folder each, found by its name."""
