"""eval locomo on a tiny invented file in LoCoMo's shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from warpmem.cli import locomo, main


def conversation(name: str, topic: str) -> dict[str, Any]:
    """Two sessions of two turns. Question words repeat the words of the turns that answer them."""
    return {
        "sample_id": name,
        "conversation": {
            "speaker_a": "Ana",
            "speaker_b": "Bo",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ana", "dia_id": "D1:1", "text": f"My {topic} garden grows tomatoes"},
                {
                    "speaker": "Bo",
                    "dia_id": "D1:2",
                    "text": "Look here",
                    "blip_caption": f"a wooden {topic} boat",
                    "img_url": ["x"],
                },
            ],
            "session_10_date_time": "12:05 am on 1 January, 2024",
            "session_10": [
                {"speaker": "Ana", "dia_id": "D10:1", "text": f"The {topic} violin needs strings"},
                {"speaker": "Bo", "dia_id": "D10:2", "text": "Good night"},
            ],
        },
        "observation": {
            "session_1_observation": {"Ana": [[f"Ana grows tomatoes in the {topic} garden", "D1:1"]]},
            "session_10_observation": {"Ana": [[f"Ana has a {topic} violin", ["D10:1", "D10:2"]]], "Bo": []},
        },
        "event_summary": {},
        "qa": [
            {"question": "garden tomatoes", "answer": "x", "evidence": ["D1:1"], "category": 1},
            {"question": "wooden boat", "answer": 2023, "evidence": ["D1:2"], "category": 2},
            {"question": "violin strings", "answer": "x", "evidence": ["D10:1; D1:1"], "category": 1},
            {"question": "night", "adversarial_answer": "x", "evidence": ["D:10:2", "D99:9"], "category": 5},
            {"question": "nothing known", "answer": "x", "evidence": [], "category": 3},
        ],
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps([conversation("c1", "red"), conversation("c2", "blue")]), encoding="utf-8")
    return path


def report(file: Path, *options: str) -> dict[str, Any]:
    out = file.with_name("report.json")
    assert main(["eval", "locomo", str(file), "--out", str(out), "--embedder", "hashing", *options]) == 0
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_turns(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(file, "--k", "4,1")
    recall = found["recall"]
    # Category 1: one question found whole, one of which the first hit is half of the evidence.
    assert recall["by_category"]["1"]["1"] == pytest.approx(0.75)
    assert recall["by_category"]["1"]["4"] == 1.0
    assert recall["by_category"]["2"] == {"1": 1.0, "4": 1.0}
    assert recall["by_category"]["5"] == {"1": 0.5, "4": 0.5}  # D99:9 is no turn, and counts as not found
    assert set(recall["by_category"]) == {"1", "2", "5"}
    assert recall["overall"]["4"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert found["counts"] == {
        "conversations": 2,
        "items": 8,
        "questions": 10,
        "with_evidence": {"overall": 8, "1": 4, "2": 2, "5": 2},
    }
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p95"]
    assert found["add_per_s"] > 0
    settings = found["settings"]
    assert (settings["granularity"], settings["mode"], settings["k"]) == ("turn", "hybrid", [1, 4])
    assert (settings["file"], settings["embedder"]) == ("tiny.json", "hashing-256-v1")
    text = capsys.readouterr().out
    assert "recall at            1       4   questions" in text
    assert "overall          0.750   0.875           8" in text
    assert "category 5       0.500   0.500           2" in text


def test_context(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(file, "--k", "1", "--context", "1000")["context"]
    assert (found["max_tokens"], found["items"]) == (1000, 4.0)  # all of a conversation
    assert found["recall"]["overall"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert found["recall"]["by_category"]["5"] == 0.5
    assert found["counter"] == "estimate" and 0 < found["tokens"] <= 1000
    assert "context of 1000 tokens: recall 0.875, 4.0 items" in capsys.readouterr().out
    less = report(file, "--k", "1", "--context", "50", "--mode", "hybrid")["context"]
    assert 0 < less["recall"]["overall"] < 0.875 and less["tokens"] <= 50
    assert report(file, "--k", "1", "--context", "3")["context"]["recall"]["overall"] == 0.0


def test_captions_can_be_left_out(file: Path) -> None:
    found = report(file, "--k", "1", "--no-captions")
    assert found["settings"]["text"] == "speaker: text"
    assert found["recall"]["by_category"]["2"]["1"] < 1.0


def test_observations(file: Path) -> None:
    found = report(file, "--k", "1,2", "--granularity", "observation")
    assert found["counts"]["items"] == 4
    assert found["recall"]["by_category"]["1"] == {"1": 0.75, "2": 1.0}
    assert found["recall"]["by_category"]["2"] == {"1": 0.0, "2": 0.0}  # no observation was made from D1:2
    assert found["recall"]["by_category"]["5"] == {"1": pytest.approx(0.25, abs=0.25), "2": 0.5}


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_modes(file: Path, mode: str) -> None:
    found = report(file, "--k", "1,4", "--mode", mode)
    assert found["settings"]["mode"] == mode
    assert found["recall"]["overall"]["1"] > 0.5


def test_evidence_ids() -> None:
    assert locomo.turn_ids(["D8:6; D9:17"]) == {"D8:6", "D9:17"}
    assert locomo.turn_ids(["D:11:26", "D", "D1:2 D1:2"]) == {"D11:26", "D1:2"}
    assert locomo.turn_ids([]) == frozenset()


def test_text_of_a_turn() -> None:
    turn = locomo.Turn("Bo", "D1:2", "Look", "a boat")
    assert locomo.turn_text(turn, captions=True) == "Bo: Look [image: a boat]"
    assert locomo.turn_text(turn, captions=False) == "Bo: Look"
    assert locomo.turn_text(locomo.Turn("Bo", "D1:2", "Look"), captions=True) == "Bo: Look"


def damaged(change: str) -> Any:
    """The tiny file with one thing wrong."""
    one = conversation("c1", "red")
    if change == "not a list":
        return one
    if change == "no date":
        del one["conversation"]["session_1_date_time"]
    elif change == "no speaker":
        del one["conversation"]["session_1"][0]["speaker"]
    elif change == "no question":
        one["qa"] = []
    return [one]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("not a list", "is not in LoCoMo's format"),
        ("no date", "session 1 has no date such as '1:56 pm on 8 May, 2023'"),
        ("no speaker", "a session is not in LoCoMo's format"),
        ("no question", "the file holds no question"),
    ],
)
def test_damaged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str) -> None:
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(damaged(change)), encoding="utf-8")
    assert main(["eval", "locomo", str(path), "--embedder", "hashing"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("warpmem: InputError: ")
    assert message in error


@pytest.mark.parametrize("content", [b'[{"sample_id": "\xff"}]', b"[" * 9_000 + b"]" * 9_000])
def test_files_that_are_not_readable_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "hostile.json"
    path.write_bytes(content)
    assert main(["eval", "locomo", str(path), "--embedder", "hashing"]) == 1
    assert "is not in LoCoMo's format" in capsys.readouterr().err


def test_file_name_that_is_not_unicode(file: Path) -> None:
    renamed = file.rename(file.with_name("tiny-\udcff.json"))
    assert report(renamed)["settings"]["file"] == "tiny-\\xff.json"


def test_report_that_cannot_be_written(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.parent / "no" / "report.json"
    assert main(["eval", "locomo", str(file), "--embedder", "hashing", "--out", str(out)]) == 1
    assert "InputError: cannot write " in capsys.readouterr().err


def test_percentile() -> None:
    assert locomo._percentile([4.0, 1.0, 3.0, 2.0], 0.95) == 4.0
    assert locomo._percentile(list(map(float, range(1, 101))), 0.95) == 95.0
