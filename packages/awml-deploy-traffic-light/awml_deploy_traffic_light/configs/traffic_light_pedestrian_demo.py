"""Training config of a classifier of pedestrians' lights: AWML's mobilenet-v2_tlr_ped_t4dataset.py, narrower.

Train:  python -m awml_deploy_traffic_light.demo --config <this file> --out pedestrian.pth
"""

_base_ = ["./traffic_light_demo.py"]

classes = ("crosswalk_red", "crosswalk_green", "crosswalk_unknown")

data_preprocessor = {"num_classes": 3}
model = {"head": {"num_classes": 3}}
