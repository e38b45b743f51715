"""Metrics that several tools need: the evaluator reports them, the verifier and the exporter weigh models by them.

`matching` and `average_precision` are the core: who takes which ground truth, and the curve that comes of it.
`nuscenes` and `voc` are the metrics of that name. What only a report needs is the evaluator's.
"""
