"""The classifier, as the runtime sees it."""
