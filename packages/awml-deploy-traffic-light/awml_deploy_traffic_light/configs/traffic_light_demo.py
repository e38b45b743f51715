"""Training config of the demo's classifier of car lights: AWML's mobilenet-v2_tlr_car_t4dataset.py, narrower.

For:    the checkpoint beside it, and the demo of `make traffic-light-all`
Train:  python -m awml_deploy_traffic_light.demo --out traffic_light_demo.pth

AWML's width is 1.0, its images have 224 pixels. Types and names are mmpretrain's, which need not be installed.
"""

classes = (
    "green",
    "left,red",
    "left,red,straight",
    "red",
    "red,right",
    "red,straight",
    "unknown",
    "yellow",
    "red,up_left",
    "red,right,straight",
    "red,up_right",
)
side = 96  # of the network's input [px]

data_preprocessor = {
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "num_classes": len(classes),
    "to_rgb": True,
}

model = {
    "type": "ImageClassifier",
    "backbone": {"type": "MobileNetV2", "widen_factor": 0.1},
    "neck": {"type": "GlobalAveragePooling"},
    "head": {
        "type": "LinearClsHead",
        "in_channels": 1280,
        "num_classes": len(classes),
        "topk": (1, 2),
        "loss": {"type": "CrossEntropyLoss", "loss_weight": 1.0},
    },
}

test_pipeline = [
    {"type": "LoadImageFromFile"},
    {"type": "CropROI"},
    {"type": "Resize", "scale": side, "backend": "pillow", "keep_ratio": True},
    {"type": "Pad", "pad_to_square": True},
    {"type": "PackInputs"},
]
test_dataloader = {"dataset": {"type": "TLRClassificationDataset", "pipeline": test_pipeline}}
