"""TransFusion as a whole."""

from __future__ import annotations

from typing import Any

from mmdet3d.models.detectors.mvx_two_stage import MVXTwoStageDetector


class TransFusion(MVXTwoStageDetector):
    """TransFusion on points alone."""

    def predict(self, batch_inputs_dict: Any, batch_data_samples: Any, **kwargs: Any) -> Any:  # noqa: ARG002 (mmdet3d's)
        """Detections of each sample, as mmdet3d's detectors give them."""
        metas = [sample.metainfo for sample in batch_data_samples]
        _, features = self.extract_feat(batch_inputs_dict, metas)
        return self.add_pred_to_datasample(batch_data_samples, self.pts_bbox_head.predict(features, metas))
