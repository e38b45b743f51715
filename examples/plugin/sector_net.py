"""The training config, in mmengine's form: what the exporter builds the network from."""

model = {"type": "SectorNet", "channels": 8}
