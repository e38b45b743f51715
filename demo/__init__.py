"""Generator of synthetic driving scenes in T4 form: the seed is the data set."""
