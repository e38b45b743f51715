"""Image classifiers for awml-deploy: AWML's MobileNetV2 for the lights of cars and pedestrians."""
