"""The model, as the exporter sees it."""
