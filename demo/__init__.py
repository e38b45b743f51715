"""Generator of synthetic driving scenes in T4 form. The same seed gives the same data set."""
