"""Training of the small models that the demo runs with. Nothing here is needed to export a model."""
