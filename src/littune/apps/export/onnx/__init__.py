"""ONNX: the towers of a run, or an image tower alone, for whatever has an ONNX runtime; a browser, too."""

import importlib.util

from littune.base.errors import MissingExtraError

if any(importlib.util.find_spec(package) is None for package in ("onnx", "onnxruntime", "onnxscript")):
    raise MissingExtraError("an export to ONNX", "onnx")

from littune.apps.export.onnx.run import to_onnx as to_onnx
from littune.apps.export.onnx.tower import tower_to_onnx as tower_to_onnx
