"""evaluator: metrics per task and latency statistics of recorded runs. Never loads a model."""
