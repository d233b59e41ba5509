"""The open inference protocol (KServe v2, Triton, MLServer): over HTTP with tensors as JSON, and over gRPC.

The protocol: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import numpy as np

from ..errors import EmbeddingError, InputError
from ..ops.grpc import GrpcEndpoint
from ..ops.http import Endpoint
from ..protocols import Embedder
from .kserve_grpc import GrpcInference
from .remote import RemoteEmbedder

_FLOATS = ("FP16", "FP32", "FP64")


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float | list[float]]


class _Answer(msgspec.Struct):
    outputs: list[_Tensor]


class KServeEmbedder(RemoteEmbedder):
    """Embedder behind `url` + "/v2/models/<model>/infer", or behind ModelInfer of a URL that begins with
    grpc:// or grpcs:// (TLS): one BYTES tensor of texts in, one of floats out.

    model       the server's name for the model
    version     of it; None leaves the choice to the server
    input       name of the tensor of texts
    output      name of the tensor of vectors, (n, dimension) or flat
    shape       of the texts: "n" is (n,), "n1" is (n, 1), as some servers want it
    raw         over gRPC: the texts go as raw_input_contents, not as bytes_contents; answers may be either
    model_id    None: made of `model` and `version`, whichever way the server is reached

    The others are those of ops/http.py's Endpoint (ops/grpc.py's GrpcEndpoint) and of RemoteEmbedder. Raises
    MissingDependency for gRPC without grpcio and protobuf.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: str | None = None,
        input: str = "text",
        output: str = "embedding",
        shape: Literal["n", "n1"] = "n",
        raw: bool = False,
        dimension: int | None = None,
        model_id: str | None = None,
        batch: int = 32,
        query_prefix: str = "",
        document_prefix: str = "",
        check_seconds: float = 60.0,
        parallel: int = 16,
        fallback: Sequence[Embedder] = (),
        timeout: float = 30.0,
        key_env: str | None = None,
        key_file: str | None = None,
        ca_file: str | None = None,
        networks: Sequence[str] = (),
    ) -> None:
        for what, name in (("model", model), ("input", input), ("output", output)):
            if not isinstance(name, str) or not name:
                raise InputError(f"{what} must be a string that is not empty")
        if version is not None and (not isinstance(version, str) or not version):
            raise InputError("version must be a string that is not empty")
        if shape not in ("n", "n1"):
            raise InputError("shape must be 'n' or 'n1'")
        if not isinstance(raw, bool):
            raise InputError("raw must be True or False")
        how: dict[str, Any] = {
            "timeout": timeout, "key_env": key_env, "key_file": key_file, "ca_file": ca_file,
            "networks": networks,
        }  # fmt: skip
        endpoint: Endpoint | GrpcEndpoint
        self._infer: Callable[[list[str], list[int], float | None], Any]
        if isinstance(url, str) and url.startswith(("grpc://", "grpcs://")):
            endpoint = GrpcEndpoint(url, **how)
            self._grpc = GrpcInference(endpoint, model, version, raw=raw)
            self._infer = self._over_grpc
        else:
            if raw:
                raise InputError("raw is for gRPC: begin the url with grpc:// or grpcs://")
            endpoint = self._http = Endpoint(url, **how)
            self._path = f"/v2/models/{quote(model, safe='')}"
            if version is not None:
                self._path += f"/versions/{quote(version, safe='')}"
            self._infer = self._over_http
        self._input = input
        self._output = output
        self._inner = [1] if shape == "n1" else []
        super().__init__(
            endpoint,
            model_id=model_id,
            default_id=f"kserve:{model}" + (f":{version}" if version else ""),
            dimension=dimension,
            batch=batch,
            query_prefix=query_prefix,
            document_prefix=document_prefix,
            check_seconds=check_seconds,
            parallel=parallel,
            fallback=fallback,
        )

    def _ask(self, texts: list[str], timeout: float | None) -> Any:
        return self._infer(texts, [len(texts), *self._inner], timeout)

    def _over_grpc(self, texts: list[str], shape: list[int], timeout: float | None) -> Any:
        return self._grpc.infer(texts, shape, self._input, self._output, self.model_id, timeout)

    def _over_http(self, texts: list[str], shape: list[int], timeout: float | None) -> Any:
        tensor = {"name": self._input, "shape": shape, "datatype": "BYTES", "data": texts}
        request = {"inputs": [tensor], "outputs": [{"name": self._output}]}
        for found in self._http.post(f"{self._path}/infer", request, _Answer, timeout).outputs:
            if found.name == self._output:
                return self._rows_of(found)
        raise EmbeddingError(f"{self.model_id!r}: the answer has no output {self._output!r}")

    def _rows_of(self, tensor: _Tensor) -> Any:
        if tensor.datatype not in _FLOATS or len(tensor.shape) != 2:
            raise EmbeddingError(
                f"{self.model_id!r}: output {self._output!r} must be 2 axes of floats, not "
                f"{len(tensor.shape)} of {tensor.datatype[:16]!r}"
            )
        try:
            return np.array(tensor.data, np.float64).reshape(tensor.shape)
        except (TypeError, ValueError):
            raise EmbeddingError(
                f"{self.model_id!r}: the numbers of output {self._output!r} do not fill its shape"
            ) from None
