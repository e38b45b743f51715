# Training config of the full size calibration status classifier: what AWML's resnet18_5ch_1xb16-50e_j6gen2.py says of
# the model and its input, without its training.
#
# For:    checkpoints of AWML
# Export: exporter export --config configs/calibration.yaml --work work/mine \
#             --set model.config=configs/train/calibration_resnet18.py --set model.checkpoint=best_accuracy_top1.pth \
#             --set data.root=/data/t4 --set data.info_file=info/t4dataset_..._infos_test.pkl

# ruff: noqa: C408

_base_ = ["./calibration_demo.py"]

model = dict(backbone=dict(stem_channels=64, base_channels=64), head=dict(in_channels=512))
