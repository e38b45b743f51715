"""The layer of the transformer decoder, with the weight names of AWML's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.models import DetrTransformerDecoderLayer
from torch import Tensor, nn


class PositionEncoding(nn.Module):
    """Positions to features, learned.

    Args:
        input_channel: coordinates of a position.
        num_pos_feats: features.
    """

    def __init__(self, input_channel: int, num_pos_feats: int = 288) -> None:
        super().__init__()
        self.position_embedding_head = nn.Sequential(
            nn.Conv1d(input_channel, num_pos_feats, 1),
            nn.BatchNorm1d(num_pos_feats),
            nn.ReLU(inplace=True),
            nn.Conv1d(num_pos_feats, num_pos_feats, 1),
        )

    def forward(self, positions: Tensor) -> Tensor:
        """(B, N, coordinates) to (B, N, features)."""
        encoded: Tensor = self.position_embedding_head(positions.transpose(1, 2))
        return encoded.transpose(1, 2)


class TransformerDecoderLayer(DetrTransformerDecoderLayer):
    """Attention among the queries, attention to the map, and a network for each query.

    Other than in DETR, the values have their positions added too: X. Bai et al., TransFusion, CVPR 2022.

    Args:
        pos_encoding_cfg: arguments of `PositionEncoding`.
        options: those of mmdet's layer.
    """

    def __init__(self, pos_encoding_cfg: Mapping[str, int], **options: Any) -> None:
        super().__init__(**options)
        self.self_posembed = PositionEncoding(**pos_encoding_cfg)
        self.cross_posembed = PositionEncoding(**pos_encoding_cfg)

    def forward(self, query: Tensor, key: Tensor, query_pos: Tensor, key_pos: Tensor) -> Tensor:
        """One layer.

        Args:
            query: (B, C, Q) float32.
            key: (B, C, H * W) float32, the map.
            query_pos: (B, Q, 2) float32, x and y in cells of the map.
            key_pos: (B, H * W, 2) float32, the same of the map's cells.

        Returns:
            (B, C, Q) float32.
        """
        of_queries, of_keys = self.self_posembed(query_pos), self.cross_posembed(key_pos)
        queries, keys = query.transpose(1, 2), key.transpose(1, 2)
        queries = self.self_attn(
            query=queries, key=queries, value=queries + of_queries, query_pos=of_queries, key_pos=of_queries
        )
        queries = self.norms[0](queries)
        queries = self.cross_attn(query=queries, key=keys, value=keys + of_keys, query_pos=of_queries, key_pos=of_keys)
        queries = self.norms[1](queries)
        answered: Tensor = self.norms[2](self.ffn(queries))
        return answered.transpose(1, 2)
