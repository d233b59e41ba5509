"""gRPC servers of the open inference protocol that tests start on this machine, with message classes of their
own. Needs grpcio and protobuf."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from local_servers import vectors

Answer = Callable[[Any, Any], Any]
"""(request, context) -> ModelInferResponse, or bytes that need not be one."""

_STRING, _INT64, _BYTES, _FLOAT, _DOUBLE, _MESSAGE = 9, 3, 12, 2, 1, 11


def _field(name: str, number: int, kind: int, *, many: bool = False, of: str = "") -> dict[str, Any]:
    found = {"name": name, "number": number, "type": kind, "label": 3 if many else 1}
    return {**found, "typeName": f".inference.{of}"} if of else found


def _tensor(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "field": [
            _field("name", 1, _STRING),
            _field("datatype", 2, _STRING),
            _field("shape", 3, _INT64, many=True),
            _field("contents", 5, _MESSAGE, of="InferTensorContents"),
        ],
    }


_FILE = {
    "name": "open_inference_grpc.proto",
    "package": "inference",
    "syntax": "proto3",
    "messageType": [
        {
            "name": "InferTensorContents",
            "field": [
                _field("fp32_contents", 6, _FLOAT, many=True),
                _field("fp64_contents", 7, _DOUBLE, many=True),
                _field("bytes_contents", 8, _BYTES, many=True),
            ],
        },
        _tensor("InferInputTensor"),
        _tensor("InferOutputTensor"),
        {"name": "InferRequestedOutputTensor", "field": [_field("name", 1, _STRING)]},
        {
            "name": "ModelInferRequest",
            "field": [
                _field("model_name", 1, _STRING),
                _field("model_version", 2, _STRING),
                _field("id", 3, _STRING),
                _field("inputs", 5, _MESSAGE, many=True, of="InferInputTensor"),
                _field("outputs", 6, _MESSAGE, many=True, of="InferRequestedOutputTensor"),
                _field("raw_input_contents", 7, _BYTES, many=True),
            ],
        },
        {
            "name": "ModelInferResponse",
            "field": [
                _field("model_name", 1, _STRING),
                _field("model_version", 2, _STRING),
                _field("id", 3, _STRING),
                _field("outputs", 5, _MESSAGE, many=True, of="InferOutputTensor"),
                _field("raw_output_contents", 6, _BYTES, many=True),
            ],
        },
    ],
}


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(json_format.ParseDict(_FILE, descriptor_pb2.FileDescriptorProto()))
    return dict(message_factory.GetMessageClassesForFiles([_FILE["name"]], pool))


_CLASSES = _classes()
Request, Response = _CLASSES["inference.ModelInferRequest"], _CLASSES["inference.ModelInferResponse"]


class Server:
    """`answer` may be exchanged between calls; `requests` are (message, metadata)."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[tuple[Any, dict[str, Any]]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def infer(self, received: bytes, context: Any) -> bytes:
        request = Request.FromString(received)
        self.requests.append((request, dict(context.invocation_metadata())))
        found = self.answer(request, context)
        return found if isinstance(found, bytes) else bytes(found.SerializeToString())


@contextmanager
def serving(answer: Answer, credentials: Any = None, port: int = 0) -> Iterator[Server]:
    """A server on a free port for as long as the block runs, with TLS if `credentials` are given."""
    found = Server(answer)
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(found.infer)}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)]
    )
    address = f"127.0.0.1:{port}"
    found.port = (
        server.add_insecure_port(address)
        if credentials is None
        else server.add_secure_port(address, credentials)
    )
    server.start()
    try:
        yield found
    finally:
        stopped: threading.Event = server.stop(0)
        stopped.wait()
        pool.shutdown()


def texts(request: Any) -> list[str]:
    """Of the one input, however they came."""
    (tensor,) = request.inputs
    assert tensor.datatype == "BYTES"
    if not request.raw_input_contents:
        return [text.decode() for text in tensor.contents.bytes_contents]
    assert not tensor.contents.bytes_contents
    (data,) = request.raw_input_contents
    found = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        found.append(data[4 : 4 + length].decode())
        data = data[4 + length :]
    return found


def answer_of(rows: Any, kind: str = "FP32", *, raw: bool = True, name: str = "embedding") -> Any:
    """A response with `rows`, which need not be sound."""
    rows = np.asarray(rows)
    response = Response(model_name="m")
    output = response.outputs.add(name=name, datatype=kind, shape=rows.shape)
    if raw:
        stored = rows.astype({"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}.get(kind, "<f4"))
        response.raw_output_contents.append(stored.tobytes())
    elif kind == "FP64":
        output.contents.fp64_contents.extend(rows.ravel().tolist())
    else:
        output.contents.fp32_contents.extend(rows.ravel().tolist())
    return response


def sound(request: Any, context: Any) -> Any:
    """A sound server, which answers in the form in which it was asked."""
    return answer_of(
        vectors(texts(request)), raw=bool(request.raw_input_contents), name=request.outputs[0].name
    )
