"""The open inference protocol over gRPC: its messages, and one call of a model.

The protocol: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
Only the fields that are used here are declared, in a pool of their own: another client of the protocol in the
same process may have registered the whole of it under the same names.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import EmbeddingError, MissingDependency
from ..ops.grpc import GrpcEndpoint

_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
_FIELDS: Final = {
    "InferTensorContents": ("fp32_contents* 6 FLOAT", "fp64_contents* 7 DOUBLE", "bytes_contents* 8 BYTES"),
    "InferTensor": (
        "name 1 STRING", "datatype 2 STRING", "shape* 3 INT64", "contents 5 InferTensorContents",
    ),
    "InferRequestedOutputTensor": ("name 1 STRING",),
    "ModelInferRequest": (
        "model_name 1 STRING", "model_version 2 STRING", "inputs* 5 InferTensor",
        "outputs* 6 InferRequestedOutputTensor", "raw_input_contents* 7 BYTES",
    ),
    "ModelInferResponse": ("outputs* 5 InferTensor", "raw_output_contents* 6 BYTES"),
}  # fmt: skip
"""Message -> "name number type" of each field, with * where it is repeated. InferTensor stands for the
protocol's InferInputTensor and InferOutputTensor, which have the same fields."""
_RAW: Final = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_TYPED: Final = {"FP32": "fp32_contents", "FP64": "fp64_contents"}


class Messages(NamedTuple):
    """The classes of the two messages."""

    request: Any
    response: Any


@functools.cache
def messages() -> Messages:
    """Raises MissingDependency without protobuf."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise MissingDependency("gRPC needs protobuf: python -m pip install 'warpmem[grpc]'") from error
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="warpmem.proto", package="inference", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for text in fields:
            field, number, kind = text.split()
            added = message.field.add(name=field.rstrip("*"), number=int(number))
            added.label = kinds.LABEL_REPEATED if field.endswith("*") else kinds.LABEL_OPTIONAL
            if kind in _FIELDS:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".inference.{kind}"
            else:
                added.type = getattr(kinds, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = message_factory.GetMessageClassesForFiles([file.name], pool)
    return Messages(found["inference.ModelInferRequest"], found["inference.ModelInferResponse"])


class GrpcInference:
    """Calls of one model: a BYTES tensor of texts in, one of floats out. Thread-safe.

    raw   send the texts as raw_input_contents, each after its length, instead of as bytes_contents; an answer
          may come in either form
    """

    def __init__(self, endpoint: GrpcEndpoint, model: str, version: str | None, *, raw: bool) -> None:
        self._endpoint = endpoint
        self._model = model
        self._version = version or ""
        self._raw = raw
        messages()

    def infer(
        self,
        texts: Sequence[str],
        shape: list[int],
        input: str,
        output: str,
        name: str,
        timeout: float | None,
    ) -> NDArray[Any]:
        """The 2 axes of floats of `output`. name: of the embedder, for messages; timeout: as of
        GrpcEndpoint.call. Raises EmbeddingError for another answer, and as GrpcEndpoint.call."""
        request = messages().request(model_name=self._model, model_version=self._version)
        tensor = request.inputs.add(name=input, datatype="BYTES", shape=shape)
        request.outputs.add(name=output)
        encoded = [text.encode() for text in texts]
        if self._raw:
            pieces = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
            request.raw_input_contents.append(pieces)
        else:
            tensor.contents.bytes_contents.extend(encoded)
        received = self._endpoint.call(_METHOD, request.SerializeToString(), timeout)
        try:
            answer = messages().response.FromString(received)
        except Exception as error:  # foreign code, whose error class differs between its versions
            raise EmbeddingError(
                f"{name!r}: {len(received)} bytes that are no answer of the open inference protocol"
            ) from error
        for place, found in enumerate(answer.outputs):
            if found.name == output:
                return _rows(found, answer.raw_output_contents, place, f"{name!r}: output {output!r}")
        raise EmbeddingError(f"{name!r}: the answer has no output {output!r}")


def _rows(tensor: Any, raw: Sequence[bytes], place: int, what: str) -> NDArray[Any]:
    shape = list(tensor.shape)
    if tensor.datatype not in _RAW or len(shape) != 2 or min(shape) < 0:
        raise EmbeddingError(f"{what} must be 2 axes of floats, not {len(shape)} of {tensor.datatype[:16]!r}")
    values: NDArray[Any] = np.empty(0)
    if place < len(raw):
        kind = np.dtype(_RAW[tensor.datatype])
        if len(raw[place]) == math.prod(shape) * kind.itemsize:
            return np.frombuffer(raw[place], kind).reshape(shape)
    elif not raw and tensor.datatype in _TYPED:
        values = np.array(getattr(tensor.contents, _TYPED[tensor.datatype]), np.float64)
        if len(values) == math.prod(shape):
            return values.reshape(shape)
    raise EmbeddingError(f"{what}: its numbers do not fill its shape")
