"""The classifier, as the exporter sees it."""
