"""reason/tokens.py: the estimate never falls below a real tokenizer on ordinary text."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path

import pytest

from warpmem.embed.wordllama import WordLlamaEmbedder
from warpmem.errors import InputError, InvalidText
from warpmem.ops.model_files import load_tokenizer
from warpmem.reason.tokens import EstimateTokenCounter, TokenizerCounter

ESTIMATE = EstimateTokenCounter()
LLAMA = TokenizerCounter(WordLlamaEmbedder.tokenizer_path(), "llama-2")

TEXTS = {
    "english": "My sister moved to Edinburgh last spring because the "
    "laboratory offered her a permanent position.",
    "rare words": "Ophthalmologists hypothesised electroencephalographic irregularities; nevertheless "
    "the acetylcholinesterase counterproposal was unconstitutional.",
    "german": "Die Donaudampfschifffahrtsgesellschaft hat ihren Sitz verlegt. Übermäßige "
    "Geschwindigkeitsüberschreitungen führen zum Entzug der Fahrerlaubnis.",
    "portuguese": "A vizinha do terceiro andar mudou-se para Coimbra "
    "porque não aguentava o barulho das obras.",
    "polish": "Zażółć gęślą jaźń. Przeprowadziłem się do Szczebrzeszyna.",
    "turkish": "Çekoslovakyalılaştıramadıklarımızdan mısınız?",
    "finnish": "Epäjärjestelmällistyttämättömyydellänsäkäänköhän hän onnistui?",
    "vietnamese": "Tôi đã chuyển đến Hà Nội vào mùa xuân năm ngoái vì công việc mới.",
    "japanese": "来週の火曜日に東京駅で待ち合わせをして、新しい研究室を見学する予定です。"
    "鬱陶しい天気が続いています。",
    "chinese": "我妹妹去年春天搬到了爱丁堡，因为实验室给了她一个永久职位。",
    "korean": "다음 주 화요일에 서울역에서 만나기로 했습니다.",
    "russian": "Моя сестра переехала в Эдинбург прошлой весной, потому что ей предложили работу.",
    "arabic": "انتقلت أختي إلى إدنبرة في الربيع الماضي",
    "hindi": "मेरी बहन पिछले वसंत में एडिनबर्ग चली गई",
    "python": "def f(x: int) -> dict[str, Any]:\n    return {k: v for k, v in zip(range(x), xs)}\n\n\n"
    "class HTTPServerErrorHandler(BaseXmlRpcProxy): pass",
    "c++": "template <typename T> constexpr auto kMaxRows = "
    "static_cast<std::uint32_t>(1u << 31); // 0xDEADBEEF",
    "digits": "Order 4815162342 shipped on 2026-03-04 at 09:12:55, "
    "tracking 1Z999AA10123456784, IP 192.168.17.254",
    "dates": "1:56 pm on 8 May, 2023",
    "hashes": "f47ac10b-58cc-4372-a567-0e02b2c3d479 9b74c9897bac770ffc029102a200c5de",
    "citation": "[0000001qf8o3k2v1m7d0b9c5e4a6g8hj] (fact, 2026-03-04) Nadia lives in Porto.",
    "base64": "aGVsbG8gd29ybGQhIFRoaXMgaXMgYmFzZTY0IGVuY29kZWQgdGV4dA== zXqkvWpQ",
    "url": "https://example.org/a/b?q=xyz&id=9f8a7s#frag user.name+tag@sub.example.co.uk",
    "emoji": "Great work 😀🎉👩\u200d👩\u200d👧\u200d👦 🇵🇹 ❤️",
    "spaces": "a     b\t\tc\n\n\n   d        e" + " " * 40,
    "capitals": "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND UNFORTUNATELY STUMBLED",
    "typography": "“Quoted” — it’s … a ‘dash’ – yes • bullet → arrow ½ € £",
    "names": "Nguyen Krzysztof Xiuying Oyelaran Mbeki Tshilidzi Vuyelwa",
    "maths": "∀x∈ℝ: x² ≥ 0 ∧ √2 ∉ ℚ",
    "one letter": "a",
    "one digit": "7",
    "newline": "\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_estimate_is_not_below_llama(name: str) -> None:
    text = TEXTS[name]
    assert ESTIMATE.count(text) >= LLAMA.count(text)
    lines = "\n".join([text] * 5)
    assert ESTIMATE.count(lines) >= LLAMA.count(lines)


def test_estimate_is_not_wildly_above() -> None:
    assert ESTIMATE.count(TEXTS["english"]) <= 2.2 * LLAMA.count(TEXTS["english"])
    everything = "\n".join(TEXTS.values())
    assert ESTIMATE.count(everything) <= 1.8 * LLAMA.count(everything)


def test_estimate_on_source_files() -> None:
    """Prose and code of this repository, in pieces of 400 characters."""
    folder = Path(__file__).parent
    pieces = 0
    for file in sorted(folder.glob("*.py")):
        source = file.read_text(encoding="utf-8", errors="replace")
        for start in range(0, min(len(source), 8_000), 400):
            piece = source[start : start + 400]
            assert ESTIMATE.count(piece) >= LLAMA.count(piece), (file.name, start)
            pieces += 1
    assert pieces > 20


def test_estimate_in_numbers() -> None:
    counts = {
        "": 0,
        "a": 2,
        "abcd": 3,
        "Abcd": 3,
        "camelCaseX": 6,
        "x1": 3,
        "a b": 3,
        "a  b": 4,
        "1 2": 4,
        "é": 2,
    }
    assert {text: ESTIMATE.count(text) for text in counts} == counts
    assert ESTIMATE.count("日") == 4
    assert ESTIMATE.count("😀") == 5


def test_estimate_is_linear_on_awkward_runs() -> None:
    for run in ("aB" * 200_000, "a" * 400_000, " " * 400_000):
        assert ESTIMATE.count(run) > 100_000


def test_names() -> None:
    assert ESTIMATE.name == "estimate"
    assert LLAMA.name == "llama-2"
    assert TokenizerCounter("some/tokenizer.json").name == "tokenizer.json"


def test_tokenizer_counter() -> None:
    assert LLAMA.count("") == 0
    assert LLAMA.count("abc") == 1
    assert LLAMA.count("12345678") == 9
    with pytest.raises(InvalidText, match="lone surrogate at character 1"):
        LLAMA.count("a\ud800")


def test_tokenizer_file_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the tokenizer file"):
        TokenizerCounter(tmp_path / "none.json").count("a")
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    with pytest.raises(InputError, match=r"is not a tokenizer\.json"):
        TokenizerCounter(bad).count("a")


@pytest.mark.parametrize("of", ["counter", "model"])
def test_no_text_is_remembered(tmp_path: Path, of: str) -> None:
    """The library kept 10,000 of the lines that it had counted in each thread, which took 2.7 GB in a service
    with 64 of them, and what was erased stayed there; of what a model's tokenizer took apart, too."""
    shutil.copy(WordLlamaEmbedder.tokenizer_path(), tmp_path / "tokenizer.json")
    count = LLAMA.count if of == "counter" else load_tokenizer(tmp_path, 512, "it").encode
    rng = random.Random(8)
    parts = ("remember", "important", "something", "conversation", "yesterday", "Wednesday")
    lines = ["".join(rng.choices(parts, k=20)) for _ in range(2_000)]

    def seconds() -> float:
        began = time.thread_time()
        for line in lines:
            count(line)
        return time.thread_time() - began

    count("load")
    assert seconds() < 2 * seconds()


def test_tokenizer_counter_from_many_threads() -> None:
    counter = TokenizerCounter(WordLlamaEmbedder.tokenizer_path())
    expected = LLAMA.count(TEXTS["english"])
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(counter.count(TEXTS["english"]))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8
