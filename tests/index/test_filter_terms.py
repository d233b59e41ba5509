"""index/columns.py and index/filter_terms.py: images that keep order, and filters as terms over them."""

from __future__ import annotations

import math
import operator
import re
import struct
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import image_of
from vector_indexes import COLUMNS, T0, attributes, conditions, filters
from vector_indexes import values as values_of
from vector_model import matches
from warpmem.errors import InputError, InvalidFilter, InvalidTime
from warpmem.index.columns import MISSING, Columns, float_image
from warpmem.index.filter_terms import FilterCompiler, Program, compile_filter
from warpmem.records import AND, MEMBERSHIP, NOT, OR, RANGE

MAX_DEPTH = 16  # far below the 64 of a scan, whatever the filter


def run(program: Program, row: Any) -> bool:
    """Evaluate terms over one row of images, as records.Term says; refuse what a scan would refuse."""
    if program.never:
        return False
    stack: list[bool] = []
    peak = 0
    for column, op, lo, hi in program.terms:
        if op == RANGE:
            stack.append(lo <= row[column] <= hi)
        elif op == MEMBERSHIP:
            some = program.values[lo:hi]
            assert 0 <= lo < hi <= len(program.values) and list(some) == sorted(some)
            stack.append(int(row[column]) in some)
        elif op == NOT:
            stack.append(not stack.pop())
        else:
            assert op in (AND, OR)
            right, left = stack.pop(), stack.pop()
            stack.append(left and right if op == AND else left or right)
        peak = max(peak, len(stack))
        if op in (RANGE, MEMBERSHIP):
            assert all(-(1 << 63) <= bound < 1 << 63 for bound in (lo, hi))
    assert peak <= MAX_DEPTH
    return all(stack)


@settings(max_examples=800, deadline=None, derandomize=True)
@given(attributes(3), filters)
def test_terms_mean_what_the_grammar_says(values: Any, condition: Any) -> None:
    columns = Columns(COLUMNS)
    images = columns.images(columns.check(values, 3), 3)
    program = compile_filter(condition, columns)
    bounded = compile_filter(condition, columns, bounded=True)
    for i in range(3):
        there = {name: given[i] for name, given in (values or {}).items() if given[i] is not None}
        expected = matches(condition, there)
        assert run(program, images[i]) is expected
        assert run(bounded, images[i]) is expected


@pytest.mark.parametrize("name", list(COLUMNS))
def test_one_column_alone(name: str) -> None:
    @settings(max_examples=400, deadline=None, derandomize=True)
    @given(st.lists(st.none() | values_of[name], min_size=4, max_size=4), conditions(name))
    def check(values: Any, condition: Any) -> None:
        columns = Columns(COLUMNS)
        images = columns.images(columns.check({name: values}, 4), 4)
        program = compile_filter({name: condition}, columns)
        for value, row in zip(values, images, strict=True):
            there = {} if value is None else {name: value}
            assert run(program, row) is matches({name: condition}, there)

    check()


@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_of_numbers_are_exact(sign: int) -> None:
    """At each operand, the nearest numbers that a column can hold on both sides, and itself."""
    columns = Columns(COLUMNS)
    compare = {
        "gt": operator.gt,
        "gte": operator.ge,
        "lt": operator.lt,
        "lte": operator.le,
        "eq": operator.eq,
    }
    operands = [
        0,
        0.0,
        0.5,
        1,
        2**53,
        2**53 + 1,
        2**53 + 2,
        1e-320,
        5e-324,
        1e308,
        10**300,
        2**63 - 1,
        2**63,
        2**1024 - 1,
    ]
    for operand in (sign * operand for operand in operands):
        near = float(operand) if abs(operand) < 10**308 else sign * 1.7976931348623157e308
        floats = [math.nextafter(near, -math.inf), near, math.nextafter(near, math.inf)]
        floats = [number for number in floats if math.isfinite(number)]
        whole = math.floor(operand) if abs(operand) < 2**63 else sign * (2**63 - 2)
        wholes = [number for number in (whole - 1, whole, whole + 1) if abs(number) < 2**63]
        for name, numbers in (("x", floats), ("n", wholes)):
            images = columns.images(columns.check({name: numbers}, len(numbers)), len(numbers))
            for op, holds in compare.items():
                program = compile_filter({name: {op: operand}}, columns)
                found = [run(program, row) for row in images]
                assert found == [holds(number, operand) for number in numbers], (name, op, operand)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(allow_nan=False), min_size=2))
def test_float_images_keep_order(numbers: list[float]) -> None:
    images = [float_image(number) for number in numbers]
    assert images == [image_of(number + 0.0) for number in numbers]
    for a, b in pairwise(numbers):
        assert (a < b) is (float_image(a) < float_image(b))
    for zero in (-0.0, 0.0):
        float_image.cache_clear()  # it takes the two for one
        assert float_image(zero) == 0
    assert min(images) > MISSING


def test_images_are_those_of_the_format_document() -> None:
    text = (Path(__file__).resolve().parents[2] / "FORMATS.md").read_text(encoding="utf-8")
    shown = re.search(r"`float64`, (\S+) is (\d+), (\S+) is (-\d+)\.", text)
    assert shown is not None
    for number, image in ((shown[1], shown[2]), (shown[3], shown[4])):
        assert float_image(float(number)) == int(image)


def test_arrays_and_lists_give_the_same_images() -> None:
    columns = Columns(COLUMNS)
    rng = np.random.default_rng(0)
    floats = rng.standard_normal(50) * 10.0 ** rng.integers(-300, 300, 50)
    floats[:3] = [0.0, -0.0, np.nan]
    whole = rng.integers(-(2**62), 2**62, 50)
    flags = rng.random(50) < 0.5
    words = np.array(["a", "b", "c"])[rng.integers(0, 3, 50)]
    for name, array in (("x", floats), ("n", whole), ("b", flags), ("s", words), ("t", whole)):
        from_array = columns.images(columns.check({name: array}, 50), 50)
        from_list = columns.images(columns.check({name: array.tolist()}, 50), 50)
        assert from_array.tolist() == from_list.tolist()
    column = columns.images(columns.check({"x": floats}, 50), 50)[:, 1]
    for image, number in zip(column.tolist(), floats.tolist(), strict=True):
        assert image == (MISSING if math.isnan(number) else image_of(number + 0.0))


def test_missing_and_whole_values() -> None:
    columns = Columns(COLUMNS)
    values = {
        "n": [None, 5, float("nan"), 7.0],
        "x": [None, float("nan"), np.float32(0.5), 3],
        "b": [None, True, np.False_, float("nan")],
        "s": [None, "", "word", float("nan")],
        "t": [None, T0, 5, np.int64(7)],
    }
    micros = (T0 - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    (half,) = struct.unpack("<q", struct.pack("<d", 0.5))
    (three,) = struct.unpack("<q", struct.pack("<d", 3.0))
    assert columns.images(columns.check(values, 4), 4).T.tolist() == [
        [MISSING, 5, MISSING, 7],
        [MISSING, MISSING, half, three],
        [MISSING, 1, 0, MISSING],
        [MISSING, 0, 1, MISSING],
        [MISSING, micros, 5, 7],
    ]
    one = columns.images(columns.check({"s": "word", "b": True, "n": 3, "t": T0, "x": None}, 2), 2)
    assert one.tolist() == [[3, MISSING, 1, 1, micros]] * 2


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("n", [1, True], "value 1 must be an integer, not bool"),
        ("n", [1, 2.5], "value 1 is no integer"),
        ("n", [1, "2"], "value 1 must be an integer, not str"),
        ("n", [1.0, 2**53 + 1], "mixes floats with integers"),
        ("n", [1, 2**63], "must lie within"),
        ("n", [1, -(2**63)], "must lie within"),
        ("n", np.array([1, 2**63], np.uint64), "must lie within"),
        ("n", np.array([0.5, 1.0]), "value 0 is no integer"),
        ("n", np.array([True, False]), "int64 values, not bool"),
        ("n", [1, 2, 3], "expected 2 values, not 3"),
        ("n", np.ones((2, 1), np.int64), "expected 1 axis, not 2"),
        ("x", [1.0, float("inf")], "value 1 is infinite"),
        ("x", [1.0, 2**1024 - 1], "too large for float64"),
        ("x", [1.0, 1j], "must be a number, not complex"),
        ("x", np.array([1j, 2]), "float64 values, not complex128"),
        ("b", [1, 0], "value 0 must be bool, not int"),
        ("b", np.array([1, 0]), "bool values, not int64"),
        ("s", [b"a", "b"], "value 0 must be a string, not bytes"),
        ("s", ["a", "\ud800"], "valid Unicode"),
        ("s", np.array([1, 2]), "str values, not int64"),
        ("t", ["2026-01-01T00:00:00Z", T0], "must be an aware datetime or microseconds, not str"),
        ("t", [1.5, T0], "must be an aware datetime or microseconds, not float"),
        ("t", np.array(["2026-01-01", "2026-01-02"], "M8[us]"), "give microseconds since 1970 UTC"),
        ("t", object(), "expected 1 axis, not 0"),
        ("gone", [1, 2], "there is no column 'gone'; the columns are n, x, b, s, t"),
        (5, [1, 2], "there is no column 5"),
    ],
)
def test_attributes_refused(name: Any, values: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Columns(COLUMNS).check({name: values}, 2)


def test_naive_time_refused() -> None:
    with pytest.raises(InvalidTime, match="naive"):
        Columns(COLUMNS).check({"t": [datetime(2026, 1, 1)]}, 1)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ([("a", "int64")], "columns must be a dict"),
        ({"a": "int32"}, "the type must be one of int64, float64, bool, str, time, not 'int32'"),
        ({"a": int}, "the type must be one of"),
        ({"": "int64"}, "not empty"),
        ({3: "int64"}, "must be a string"),
        ({"or": "int64"}, "which filters use"),
        ({"\ud800": "int64"}, "valid Unicode"),
        ({f"c{i}": "int64" for i in range(1025)}, "1024 columns, not 1025"),
    ],
)
def test_declarations_refused(declared: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Columns(declared)


@pytest.mark.parametrize(
    ("condition", "path", "words"),
    [
        ({"gone": 1}, "gone", "there is no such column; the columns are n, x, b, s, t"),
        ({"n": "1"}, "n", "expected a number"),
        ({"n": True}, "n", "expected a .*, not boolean"),
        ({"n": None}, "n", "a column is never null"),
        ({"n": {"contains": 1}}, "n.contains", "does not apply"),
        ({"b": 1}, "b", "expected a boolean, not number"),
        ({"b": {"gt": True}}, "b.gt", "gt does not apply to b, a boolean field"),
        ({"s": 1}, "s", "expected a string"),
        ({"s": T0}, "s", "expected a string, not datetime"),
        ({"n": {"gte": T0}}, "n.gte", "expected a number, not datetime"),
        ({"t": 5}, "t", "expected a time"),
        ({"t": T0.replace(tzinfo=None)}, "t", "no UTC offset"),
        ({"x": {"lt": float("nan")}}, "x.lt", "finite"),
        ({"or": [{"n": 1}, {"x": {"~": 1}}]}, "or[1].x.~", "unknown operator"),
        ([], "", "expected an object"),
        ({"n": [1]}, "n", "a list is no condition"),
    ],
)
def test_filters_refused(condition: Any, path: str, words: str) -> None:
    with pytest.raises(InvalidFilter, match=words) as caught:
        compile_filter(condition, Columns(COLUMNS))
    assert caught.value.path == path


def test_kept_programs_are_those_of_the_filter_asked_for() -> None:
    columns = Columns(COLUMNS)
    compiler = FilterCompiler(columns)
    same = [{"n": 1}, {"n": 1.0}, {"n": {"in": [1]}}, {"n": {"in": (1,)}}, {"x": 1}, {"b": True}, {"s": "1"}]
    same += [{"or": [{"n": 1}]}, {"and": []}, {"t": T0}, {"t": T0.isoformat()}, {"n": np.int64(1)}, {}]
    for _ in range(2):
        for condition in same:
            assert compiler.compile(condition) == compile_filter(condition, columns)
        for wrong in ({"n": True}, {"b": 1}, {"s": 1}, {"n": "1"}, {"t": T0.replace(tzinfo=None)}):
            with pytest.raises(InvalidFilter):
                compiler.compile(wrong)
    kept = {"s": "later"}
    assert compiler.compile(kept).never
    columns.dictionaries["s"].grow(["later"])
    assert compiler.compile(kept).terms == ((3, RANGE, 0, 0),)
    kept["s"] = "latest"
    assert compiler.compile(kept).never
    loop: dict[str, Any] = {}
    loop["not"] = loop
    with pytest.raises(InvalidFilter, match="nested"):
        compiler.compile(loop)
    with pytest.raises(InvalidFilter, match="expected a"):
        compiler.compile({"n": {"eq": {}}})
    for i in range(1000):
        assert compiler.compile({"n": i}).terms == ((0, RANGE, i, i),)
    assert len(compiler._programs) <= 256


def test_numpy_scalars_are_operands() -> None:
    columns = Columns(COLUMNS)
    for condition, plain in (
        ({"n": np.int32(3)}, {"n": 3}),
        ({"x": {"gt": np.float32(0.5)}}, {"x": {"gt": 0.5}}),
        ({"b": np.True_}, {"b": True}),
        ({"s": np.str_("a")}, {"s": "a"}),
    ):
        assert compile_filter(condition, columns) == compile_filter(plain, columns)


def test_simple_conditions_are_one_term() -> None:
    columns = Columns(COLUMNS)
    columns.images(columns.check({"s": ["a", "b", "c"]}, 3), 3)
    (term,) = compile_filter({"n": {"gte": 1, "lt": 5}}, columns).terms
    assert term == (0, RANGE, 1, 4)
    assert len(compile_filter({"n": 1, "b": True, "x": {"gt": 0}}, columns).terms) == 3
    assert compile_filter({"s": {"in": ["b", "c"]}}, columns).terms == ((3, RANGE, 1, 2),)
    assert compile_filter({"s": {"in": ["a", "c"]}}, columns).values == (0, 2)
    assert compile_filter({"s": "unheard"}, columns).never
    assert compile_filter({"n": {"gt": 5, "lt": 5}}, columns).never
    assert compile_filter({"and": [{}, {"or": [{}, {"n": 1}]}]}, columns).terms == ()


@pytest.mark.parametrize("wide", [{"or": []}, {"and": []}])
def test_deep_and_wide_filters_need_little_stack(wide: dict[str, Any]) -> None:
    (kind,) = wide
    columns = Columns(COLUMNS)
    row = [5, 0, 1, 0, 0]
    chain: Any = {"n": 5}
    for i in range(30):
        chain = {"or": [{"n": i + 6}, {"and": [{"x": {"gte": -1}}, chain]}]}
    assert run(compile_filter(chain, columns), row)
    many = {kind: [{"or": [{"n": 5}, {"b": False}]} for _ in range(1500)]}
    assert run(compile_filter(many, columns), row)
    assert run(compile_filter({"and": [{"n": {"ne": i}} for i in range(100, 900)]}, columns), row)


def test_dictionary_answers_grow_with_it() -> None:
    columns = Columns({"s": "str"})
    known = columns.dictionaries["s"]
    known.grow(["apple", None, "pear"])
    condition = {"s": {"icontains": "AP"}}
    first = compile_filter(condition, columns)
    assert first.terms == ((0, RANGE, 0, 0),)
    assert not first.outgrown()
    known.grow(["grape", "plum", "apple"])
    assert first.outgrown()
    assert compile_filter(condition, columns).values == (0, 2)
    asked: list[str] = []
    known.matching(("test", ""), lambda name: not asked.append(name))
    known.grow(["fig"])
    assert known.matching(("test", ""), lambda name: not asked.append(name)) == [0, 1, 2, 3, 4]
    assert asked == ["apple", "pear", "grape", "plum", "fig"]
    for i in range(200):
        known.matching(("contains", str(i)), lambda name: False)
    assert len(known._answers) <= 64
