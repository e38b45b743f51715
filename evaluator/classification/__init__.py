"""How metrics of classification are shown."""
