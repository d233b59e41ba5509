"""Small model directories, made on the spot: as sentence-transformers saves them, with an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

DIMENSION = 24
VOCABULARY = 2048


def tokenizer_json(folder: Path) -> None:
    """A tokenizer without training: each byte is a token, between [CLS] and [SEP]."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, **{c: 3 + i for i, c in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def table() -> np.ndarray[Any, Any]:
    """The network: a vector for each token, and each position's share of it."""
    return np.random.default_rng(7).standard_normal((VOCABULARY, DIMENSION), np.float32)


def onnx_file(file: Path, *, name: str = "input_ids", sentence: bool = False, rows: Any = None) -> None:
    """A network of one Gather: tokens to vectors; with `sentence` their sum, two axes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Gather", ["table", name], ["tokens"])]
    output, axes = "tokens", ["n", "length", DIMENSION]
    if sentence:
        nodes.append(helper.make_node("ReduceSum", ["tokens", "axis"], ["summed"], keepdims=0))
        output, axes = "summed", ["n", DIMENSION]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(given, TensorProto.INT64, ["n", "length"])
            for given in (name, "attention_mask")
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, axes)],
        [
            numpy_helper.from_array(table() if rows is None else rows, "table"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(file))


def cross_encoder_file(file: Path, *, outputs: int = 1, factor: float = 1.0) -> None:
    """A network that reads pairs: which share of the query's tokens the text has, times `factor`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    make = helper.make_node
    nodes = [
        make("OneHot", ["input_ids", "depth", "off_on"], ["tokens"]),
        make("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
        make("Cast", ["token_type_ids"], ["second"], to=TensorProto.FLOAT),
        make("Mul", ["kept", "second"], ["of_text"]),
        make("Sub", ["kept", "of_text"], ["of_query"]),
    ]
    for part in ("text", "query"):
        nodes += [
            make("Unsqueeze", [f"of_{part}", "last"], [f"{part}_mask"]),
            make("Mul", ["tokens", f"{part}_mask"], [f"{part}_tokens"]),
            make("ReduceSum", [f"{part}_tokens", "length"], [f"{part}_counts"], keepdims=0),
        ]
    nodes += [
        make("Min", ["text_counts", "query_counts"], ["shared_counts"]),
        make("ReduceSum", ["shared_counts", "length"], ["shared"]),
        make("ReduceSum", ["query_counts", "length"], ["all"]),
        make("Div", ["shared", "all"], ["share"]),
        make("Mul", ["share", "factors"], ["logits"]),
    ]
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    graph = helper.make_graph(
        nodes,
        "pairs",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"]) for name in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", outputs])],
        [
            numpy_helper.from_array(np.array(value, dtype), name)
            for name, value, dtype in (
                ("depth", VOCABULARY, np.int64), ("off_on", [0, 1], np.float32), ("last", [2], np.int64),
                ("length", [1], np.int64), ("factors", [factor] * outputs, np.float32),
            )
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(file))


def model_directory(
    folder: Path,
    *,
    pooling: Any = "mean",
    normalize: bool = True,
    prompts: dict[str, str] | None = None,
    max_seq_length: int = 8192,
) -> Path:
    """A directory with everything but weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_json(folder)
    modes = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken", "max": "max_tokens"}
    files: dict[str, Any] = {
        "config.json": {"hidden_size": DIMENSION, "max_position_embeddings": 8192, "pad_token_id": 0},
        "sentence_bert_config.json": {"max_seq_length": max_seq_length, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": prompts or {}},
        "1_Pooling/config.json": {
            "word_embedding_dimension": DIMENSION,
            **{f"pooling_mode_{name}": mode == pooling for mode, name in modes.items()},
        },
        "modules.json": [
            {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(
                [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * normalize
            )
        ],
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder
