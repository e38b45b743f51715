#!/usr/bin/env bash
# Writes the hash-locked requirements of every image and edge bundle: make lock
# Versions that are in a file already stay; to take newer ones, delete the file or change pins.txt. The packages of the
# exporter come from exporter.txt and exporter-nodeps.txt one folder up. UV_FIND_LINKS names a folder with the CPU wheel
# of PyTorch (it is not on PyPI); without it torch-cpu.txt stays as it is. PYTHON is 3.11 or newer.
set -euo pipefail
cd "$(dirname "$0")"
export UV=${UV:-uv}
options=(-q --generate-hashes --no-header --no-annotate)

for name in verifier runtime-tensorrt runtime-pytorch runtime-onnx trt_builder tensorrt-rtx pycuda build-tools pip cluster; do
    "$UV" pip compile "${options[@]}" --universal --python-version 3.10 -c pins.txt -o "$name.txt" "$name.in"
    "${PYTHON:-python3}" linux_only.py 3.10 "$name.txt"
done
for name in evaluator torch-cuda docs; do
    "$UV" pip compile "${options[@]}" --universal --python-version 3.11 -c pins.txt -o "$name.txt" "$name.in"
    "${PYTHON:-python3}" linux_only.py 3.11 "$name.txt"
done
"$UV" pip compile "${options[@]}" --universal --python-version 3.11 --no-deps --no-emit-package torch -o exporter.txt \
    ../exporter.txt ../exporter-nodeps.txt exporter.in
"${PYTHON:-python3}" linux_only.py 3.11 exporter.txt
if [ -n "${UV_FIND_LINKS:-}" ]; then
    "$UV" pip compile "${options[@]}" --python-version 3.11 --python-platform x86_64-manylinux_2_28 -o torch-cpu.txt torch-cpu.in
fi
