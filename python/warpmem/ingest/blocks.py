"""What a document is made of, by its format: blocks that lie beside each other and cover all of it.

    markdown  paragraphs, lists, tables and fenced code, under the path of their headings (# and underlined)
    text      paragraphs
    code      what stands at the margin after an empty line, with all that is indented below it
    log       entries: a line that begins with a time or a level, and those after it that do not
    jsonl     lines

No language and no parser is known. A block ends with the white space behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, get_args

from ..errors import InputError
from ..types import Format
from .sections import Block, lines_of, sections

FORMATS: Final = get_args(Format)

_CODE_SUFFIXES: Final = (
    ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".cuh", ".rs", ".go", ".java", ".kt", ".js",
    ".mjs", ".ts", ".tsx", ".jsx", ".rb", ".php", ".swift", ".cs", ".scala", ".lua", ".jl", ".r", ".m", ".sh",
    ".bash", ".sql", ".toml", ".yaml", ".yml", ".ini", ".cfg", ".json", ".cmake", ".proto",
)  # fmt: skip
_BY_SUFFIX: Final[dict[str, Format]] = {
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd"), "markdown"),
    **dict.fromkeys((".log", ".out", ".err"), "log"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys(_CODE_SUFFIXES, "code"),
}

_CLOSES = re.compile(r"[)\]}]|(?:else|elif|except|finally|catch|end|fi|done|esac)\b")
_LEVELS: Final = ("trace", "debug", "info", "notice", "warn", "warning", "error", "critical", "fatal")
_LEVEL = re.compile(rf"(?<![a-z])({'|'.join(_LEVELS)})(?![a-z])", re.IGNORECASE)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"
    r"|\d{4}/\d\d/\d\d[ T]\d\d:\d\d(?::\d\d)?"
    r"|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    r"|\d\d:\d\d:\d\d(?:[.,]\d+)?"
    r"|\d{10}(?:\d{3})?(?:\.\d+)?(?=\s)"
)
_LEAD = re.compile(r"[\s\[<(|]{0,4}")


def format_of(name: str) -> Format:
    """The format of a document by the end of its name; "text" where that says nothing."""
    dot = name.rfind(".")
    return _BY_SUFFIX.get(name[dot:].lower(), "text") if dot >= 0 else "text"


def check_format(value: object) -> Format:
    """One of the formats. Raises InputError."""
    if not isinstance(value, str) or value not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}")
    return value  # type: ignore[return-value]


def blocks(text: str, format: Format) -> list[Block]:
    """The blocks of a text in order; the first begins at 0, each where the one before it ends."""
    lines = lines_of(text)
    if format == "markdown":
        return sections(lines)
    begins = _BEGINS[format]
    starts = [0]
    before = ""
    for start, line in lines:
        if start and begins(before, line):
            starts.append(start)
        before = line
    return [Block(start, end) for start, end in zip(starts, [*starts[1:], len(text)], strict=True) if end]


def log_facts(text: str) -> dict[str, str]:
    """The first time and the most serious level that stand at the head of a log's entries, as written; levels
    in lower case."""
    facts: dict[str, str] = {}
    worst = -1
    for _, line in lines_of(text):
        time = _time_at_head(line)
        if time is not None:
            facts.setdefault("time", time)
        level = _level_at_head(line)
        if level is not None:
            worst = max(worst, _LEVELS.index(level))
    if worst >= 0:
        facts["level"] = _LEVELS[worst]
    return facts


def _paragraph_begins(before: str, line: str) -> bool:
    return not before.strip() and bool(line.strip())


def _definition_begins(before: str, line: str) -> bool:
    return _paragraph_begins(before, line) and not line[0].isspace() and not _CLOSES.match(line)


def _entry_begins(_before: str, line: str) -> bool:
    return _time_at_head(line) is not None or _level_at_head(line) is not None


def _line_begins(_before: str, line: str) -> bool:
    return bool(line.strip())


_BEGINS: Final[dict[Format, Callable[[str, str], bool]]] = {
    "text": _paragraph_begins,
    "code": _definition_begins,
    "log": _entry_begins,
    "jsonl": _line_begins,
}


def _time_at_head(line: str) -> str | None:
    lead = _LEAD.match(line)
    found = _TIME.match(line, lead.end() if lead else 0)
    return None if found is None else found[0]


def _level_at_head(line: str) -> str | None:
    """A level within the first words of a line that does not look like prose."""
    found = _LEVEL.search(line, 0, 80)
    if found is None:
        return None
    if found[0].isupper() or (_time_at_head(line) is not None and found.start() < 48):
        return found[0].lower()
    return None
