"""A model directory with a network that costs what MiniLM-L6 costs, with random weights.

Its matrices are those of six layers of 384 (attention's four and the two of the feed-forward part); attention
itself, which is a hundredth of the work for short texts, is left out. A token is a byte."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

import sentence_models

_WIDTH = 384
_LAYERS = 6


class _Graph:
    """Nodes and weights of an ONNX graph, each output named after its number."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._numbers: Iterator[int] = count()
        self._rng = np.random.default_rng(1)

    def node(self, kind: str, *inputs: str) -> str:
        from onnx import helper

        output = f"{kind}-{next(self._numbers)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output]))
        return output

    def weight(self, values: Any) -> str:
        from onnx import numpy_helper

        name = f"weight-{next(self._numbers)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def linear(self, tokens: str, inputs: int, outputs: int) -> str:
        matrix = self._rng.standard_normal((inputs, outputs)) / np.sqrt(inputs)
        return self.node("MatMul", tokens, self.weight(matrix))


def make(folder: Path) -> Path:
    """Write the directory for embed.onnx.OnnxEmbedder; returns it."""
    import onnx
    from onnx import TensorProto, helper

    sentence_models.model_directory(folder)
    graph = _Graph()
    tokens = graph.node("Gather", graph.weight(sentence_models.table()), "input_ids")
    x = graph.linear(tokens, sentence_models.DIMENSION, _WIDTH)
    for _ in range(_LAYERS):
        y = x
        for _ in range(4):
            y = graph.node("Tanh", graph.linear(y, _WIDTH, _WIDTH))
        x = graph.node("Add", x, y)
        inner = graph.node("Relu", graph.linear(x, _WIDTH, 4 * _WIDTH))
        x = graph.node("Tanh", graph.node("Add", x, graph.linear(inner, 4 * _WIDTH, _WIDTH)))
    output = graph.linear(x, _WIDTH, sentence_models.DIMENSION)
    given = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    shape = ["n", "length", sentence_models.DIMENSION]
    vectors = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
    made = helper.make_graph(graph.nodes, "minilm-size", given, [vectors], graph.weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    return folder
