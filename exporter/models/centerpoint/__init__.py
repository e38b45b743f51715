"""CenterPoint with pillars."""
