"""Stands for a base of a training config whose package is not installed: an empty config (`exporter.package_bases`)."""
