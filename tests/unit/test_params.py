"""params: validation errors in one line that names the field, and queries that are paid for once."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from marshmallow import Schema, ValidationError, fields

from taskserver.errors import BadParameter
from taskserver.model import Scope, TaskState
from taskserver.web import params
from taskserver.web.bodies import declared_type
from taskserver.web.params import Integer, QueryInteger, body_text, describe, one_of, query


class Question(Schema):
    """A query for these tests."""

    first = QueryInteger(0, 10, load_default=7)
    tags = fields.List(fields.String(), load_default=list)


QUESTION = Question()


def reading(field: fields.Field, value: Any) -> Any:  # type: ignore[type-arg]
    return field.deserialize(value)


class TestInteger:
    @pytest.mark.parametrize("value", [0, 5, 10])
    def test_numbers_within_the_bounds_are_taken(self, value: int) -> None:
        assert reading(Integer(0, 10), value) == value
        assert reading(QueryInteger(0, 10), str(value)) == value

    @pytest.mark.parametrize("value", [-1, 11, 1.0, 1.5, True, False, "5", None, [], 10**40, float("nan")])
    def test_everything_else_is_refused_with_the_bounds(self, value: Any) -> None:
        if value is None:
            with pytest.raises(ValidationError):
                reading(Integer(0, 10), value)
        else:
            with pytest.raises(ValidationError, match="must be an integer from 0 to 10"):
                reading(Integer(0, 10), value)

    @pytest.mark.parametrize(
        "value", ["", " ", "5 ", " 5", "5.0", "1_0", "0x5", "٥", "5\n", "five", "1e1", "-1", "11", "9" * 19, "9" * 5000]
    )
    def test_a_query_takes_plain_digits_only(self, value: str) -> None:
        with pytest.raises(ValidationError, match="must be an integer from 0 to 10"):
            reading(QueryInteger(0, 10), value)

    def test_signs_and_leading_zeros_are_digits_enough(self) -> None:
        for value, number in [("+5", 5), ("-0", 0), ("007", 7)]:
            assert reading(QueryInteger(0, 10), value) == number


class TestText:
    def test_it_is_bounded_and_without_nul(self) -> None:
        field = body_text(3)
        assert reading(field, "abc") == "abc"
        assert reading(field, "🎈🎈🎈") == "🎈🎈🎈"
        for wrong in ("abcd", "a\0", 5, None, b"abc\xff", ["a"]):
            with pytest.raises(ValidationError):
                reading(field, wrong)

    def test_a_choice_names_what_there_is(self) -> None:
        assert one_of(Scope)("read") == "read"
        with pytest.raises(ValidationError, match="queued, running, success, failed, cancelled, interrupted"):
            one_of(TaskState)("done")


class TestDescribe:
    @pytest.mark.parametrize(
        ("messages", "line"),
        [
            ({"wait": ["Must be an integer from 0 to 20."]}, "wait: must be an integer from 0 to 20"),
            ({"a": ["Too long."], "b": ["Missing."]}, "a: too long; b: missing"),
            ({"_schema": ["Invalid input type."]}, "invalid input type"),
            ({"result": {"type": ["Missing."]}}, "result.type: missing"),
            (
                {"output": {0: ["Not a string."], 3: ["Not a string."]}},
                "output.0: not a string; output.3: not a string",
            ),
            ({"labels": {"a": {"value": ["Too long."]}}}, "labels.a.value: too long"),
            ({"a": ["One.", "Two."]}, "a: one. Two"),
            (["Just so."], "just so"),
            ([""], ""),
        ],
    )
    def test_messages_become_one_line(self, messages: Any, line: str) -> None:
        assert describe(messages) == line


class TestQuery:
    async def test_it_is_validated_and_has_its_defaults(self) -> None:
        assert query(make_mocked_request("GET", "/?first=3&tags=a&tags=b"), QUESTION) == {
            "first": 3,
            "tags": ["a", "b"],
        }
        assert query(make_mocked_request("GET", "/"), QUESTION) == {"first": 7, "tags": []}
        assert query(make_mocked_request("GET", "/?other=1"), QUESTION) == {"first": 7, "tags": []}

    async def test_a_mistake_is_told_each_time(self) -> None:
        for _ in range(2):
            with pytest.raises(BadParameter, match="first: must be an integer from 0 to 10"):
                query(make_mocked_request("GET", "/?first=11"), QUESTION)

    async def test_the_same_question_is_validated_once(self) -> None:
        first = query(make_mocked_request("GET", "/a?first=4"), QUESTION)
        assert query(make_mocked_request("GET", "/b?first=4"), QUESTION) is first

    async def test_two_schemas_do_not_share_an_answer(self) -> None:
        class Other(Schema):
            first = fields.String()

        other = Other()
        assert query(make_mocked_request("GET", "/?first=5"), QUESTION) == {"first": 5, "tags": []}
        assert query(make_mocked_request("GET", "/?first=5"), other) == {"first": "5"}

    async def test_what_is_remembered_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(params, "QUERIES_REMEMBERED", 10)
        monkeypatch.setattr(params, "_queries", type(params._queries)())
        for number in range(50):
            query(make_mocked_request("GET", f"/?first=1&x={number}"), QUESTION)
        assert len(params._queries) == 10


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        (" text/plain ;x", "text/plain"),
        ("", ""),
        (None, None),
    ],
)
def test_a_media_type_is_told_without_its_parameters(header: str | None, expected: str | None) -> None:
    headers = {} if header is None else {"Content-Type": header}
    assert declared_type(make_mocked_request("POST", "/", headers=headers)) == expected
