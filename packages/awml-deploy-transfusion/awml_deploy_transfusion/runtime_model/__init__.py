"""The model, as the runtime sees it."""
