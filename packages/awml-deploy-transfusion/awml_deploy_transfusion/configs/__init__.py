"""Deploy configs that the tools find by their names, and what they refer to."""
