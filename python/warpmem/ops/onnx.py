"""A network of tokens as an ONNX file, run by ONNX Runtime in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MissingDependency, ModelError
from ..types.scalars import integer

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_KNOWN = ("input_ids", "attention_mask", "token_type_ids")


class OnnxNetwork:
    """The network of a model directory. Thread-safe.

    file      inside `folder`; None: "model.onnx" or "onnx/model.onnx". Its inputs are among input_ids,
              attention_mask and token_type_ids
    device    "cpu" or "cuda"
    threads   of one run on the CPU; 0 leaves it to ONNX Runtime
    what      for messages, such as "the embedder 'onnx'"
    failure   the kind of ModelError that a failing network is

    Raises InputError, MissingDependency and `failure`.
    """

    def __init__(
        self,
        folder: Path,
        file: str | None,
        *,
        device: str,
        threads: int,
        what: str,
        failure: type[ModelError],
    ) -> None:
        if device not in _PROVIDERS:
            raise InputError("device must be 'cpu' or 'cuda'")
        threads = integer(threads, "threads", 0, 1024)
        names = ("model.onnx", "onnx/model.onnx") if file is None else (file,)
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            raise InputError(f"{str(folder)!r} has no {' and no '.join(names)}")
        self._failure = failure
        self._session = _session(str(found[0]), _PROVIDERS[device], threads, what, failure)
        self._inputs = [given.name for given in self._session.get_inputs()]
        if "input_ids" not in self._inputs or not set(self._inputs) <= set(_KNOWN):
            raise InputError(
                f"{found[0].name} takes {', '.join(self._inputs)}; known are {', '.join(_KNOWN)}"
            )
        self.weights = [found[0], *sorted(found[0].parent.glob(f"{found[0].name}*data"))]

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], types: NDArray[np.int64], name: str
    ) -> NDArray[Any]:
        """The first output for (n, length) tokens. `name` is the model's, for the message of a failure."""
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        try:
            output: NDArray[Any] = self._session.run(None, {key: given[key] for key in self._inputs})[0]
        except Exception as error:  # foreign code: whatever it raises, it failed
            raise self._failure(f"{name!r}: ONNX Runtime raised {type(error).__name__}") from error
        return output


def _session(file: str, provider: str, threads: int, what: str, failure: type[ModelError]) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            f"{what} needs ONNX Runtime: python -m pip install 'warpmem[onnx]'"
        ) from error
    if provider not in onnxruntime.get_available_providers():
        raise MissingDependency(f"ONNX Runtime has no {provider} here: python -m pip install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(file, options, providers=[provider])
    except Exception as error:  # foreign code: whatever it raises, it failed
        raise failure(f"ONNX Runtime cannot load {file!r}: {type(error).__name__}") from error
