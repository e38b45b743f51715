"""Data set part of AWML's configs: only what the model part refers to."""

custom_imports = dict(imports=["autoware_ml.detection3d.datasets.t4dataset"], allow_failed_imports=False)
dataset_type = "T4Dataset"
class_names = ["car", "truck", "bus", "bicycle", "pedestrian"]
metainfo = dict(classes=class_names)
