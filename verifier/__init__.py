"""verifier: compares recorded outputs of backends with one another and with the training framework. Loads no model."""
