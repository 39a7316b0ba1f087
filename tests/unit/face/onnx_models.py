"""Tiny ONNX models with the inputs and outputs of insightface's: what they find follows from the pixels alone."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
# Distances and points of the tiny detector, in strides from the cell it looks from.
EDGES = (0.5, 1.0, 1.5, 2.0)
POINTS = (0.1, 0.2, 0.9, 0.3, 0.5, 0.6, 0.2, 1.0, 0.8, 1.0)


def save_scrfd(path: Path, strides: tuple[int, ...] = (8, 16, 32), anchors: int = 2, with_points: bool = True) -> Path:
    """Write a detector that sees a face in each cell that is red and neither green nor blue.

    Like SCRFD it has a score, a box and a point branch per stride, for pictures of any size in steps of 32 pixels.

    Args:
        path: File to write.
        strides: Pixels per cell, one level each.
        anchors: Guesses per cell; the second is surer than the first.
        with_points: False leaves the point branches out.
    """
    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    names: list[tuple[str, int]] = []
    branches = (("score", 1), ("box", 4), ("points", 10))[: 3 if with_points else 2]
    for branch, width in branches:
        for stride in strides:
            kernel = np.zeros((anchors * width, 3, stride, stride), np.float32)
            if branch == "score":
                kernel[:] = np.array([20, -20, -20], np.float32).reshape(1, 3, 1, 1) / stride**2
                bias = -55 + np.arange(anchors, dtype=np.float32)
            else:
                bias = np.tile(np.array(EDGES if branch == "box" else POINTS, np.float32), anchors)
            name = f"{branch}_{stride}"
            weights += [
                numpy_helper.from_array(kernel, f"{name}.weight"),
                numpy_helper.from_array(bias, f"{name}.bias"),
                numpy_helper.from_array(np.array([-1, width]), f"{name}.shape"),
            ]
            out = f"{name}.cells"
            nodes += [
                helper.make_node(
                    "Conv",
                    ["input.1", f"{name}.weight", f"{name}.bias"],
                    [out],
                    kernel_shape=[stride, stride],
                    strides=[stride, stride],
                )
            ]
            if branch == "score":
                nodes += [helper.make_node("Sigmoid", [out], [f"{name}.sure"])]
                out = f"{name}.sure"
            nodes += [
                helper.make_node("Transpose", [out], [f"{name}.rows"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}.rows", f"{name}.shape"], [name]),
            ]
            names.append((name, width))
    inputs = [helper.make_tensor_value_info("input.1", FLOAT, [1, 3, "height", "width"])]
    outputs = [helper.make_tensor_value_info(name, FLOAT, ["cells", width]) for name, width in names]
    return _save(path, nodes, inputs, outputs, weights)


def save_arcface(path: Path, dim: int = 512) -> Path:
    """Write a recogniser that mixes the mean colours of 4 x 4 patches of its crop at random.

    Args:
        path: File to write.
        dim: Length of the embedding.
    """
    mixing: NDArray[np.float32] = np.random.default_rng(0).standard_normal((48, dim)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["input.1"], ["patches"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["patches"], ["flat"]),
        helper.make_node("MatMul", ["flat", "mixing"], ["embedding"]),
    ]
    inputs = [helper.make_tensor_value_info("input.1", FLOAT, ["None", 3, 112, 112])]
    outputs = [helper.make_tensor_value_info("embedding", FLOAT, ["None", dim])]
    return _save(path, nodes, inputs, outputs, [numpy_helper.from_array(mixing, "mixing")])


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto],
) -> Path:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path
