"""The contract between the tools: workspace, manifest, config, model spec, datasets, task types, errors."""

__version__ = "0.1.0"
