"""ingest/statements.py: what is kept of a message without a model."""

from __future__ import annotations

import pytest

from warpmem.ingest.statements import sentences, statements


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Hi there! How are you? I moved to Porto last week.", ["I moved to Porto last week."]),
        ("Ok. Thanks! Great!\nThat sounds good.", []),
        ("My cat is called Mottek. lol", ["My cat is called Mottek."]),
        ("- I drink tea in the morning\n- Do you?\n2) I work nights now", [
            "I drink tea in the morning", "I work nights now",
        ]),
        ("Dr. Silva said no. The meeting is at 9. See you!", ["Dr. Silva said no.", "The meeting is at 9."]),
        ("Budget: 400.50 euros. Yes.", ["Budget: 400.50 euros."]),
        ("Ich wohne jetzt in Porto. Danke! Wie geht's?", ["Ich wohne jetzt in Porto."]),
        ("¿Qué tal? Trabajo en una panadería. ¡Gracias!", ["Trabajo en una panadería."]),
        ("Я теперь живу в Лиссабоне. Спасибо!", ["Я теперь живу в Лиссабоне."]),
        ("こんにちは！元気ですか？猫を二匹飼っています。", ["猫を二匹飼っています。"]),
        ("", []),
        ("I got it.\nI got it.", []),
        ("Nina paid 40.\nNina paid 40.", ["Nina paid 40."]),
    ],
)  # fmt: skip
def test_what_states_something_is_kept(text: str, kept: list[str]) -> None:
    assert statements(text) == kept


def test_sentences_end_where_they_end() -> None:
    assert sentences('He said "No." She left. e.g. this. 3. May is fine') == [
        'He said "No."', "She left.", "e.g. this.", "3. May is fine",
    ]  # fmt: skip
