"""Deploy and training configs of the demo, its weights, and the log of their training."""
