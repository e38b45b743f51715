"""TransFusion-L on pillars, for awml-deploy."""
