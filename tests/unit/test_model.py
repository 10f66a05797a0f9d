"""model: the rules that need no I/O."""

from __future__ import annotations

import pytest

from taskserver.model import (
    FINAL_STATES,
    ID_PATTERN,
    ApiKey,
    Chunk,
    Outcome,
    Scope,
    Task,
    TaskState,
    default_error,
    lease_end,
    new_id,
    now_us,
    outcome_state,
)


def test_four_states_are_final() -> None:
    assert {state.value for state in FINAL_STATES} == {"success", "failed", "cancelled", "interrupted"}
    for state in TaskState:
        task = Task("a", 1, "ann", "", state, 0)
        assert task.finished == state.finished == (state in FINAL_STATES)


@pytest.mark.parametrize(
    ("code", "cancel_requested", "state"),
    [
        (0, False, TaskState.SUCCESS),
        (0, True, TaskState.SUCCESS),
        (1, False, TaskState.FAILED),
        (-1, False, TaskState.FAILED),
        (1, True, TaskState.CANCELLED),
        (-1, True, TaskState.CANCELLED),
    ],
)
def test_the_code_and_the_wish_decide_the_state(code: int, cancel_requested: bool, state: TaskState) -> None:
    assert outcome_state(Outcome(code), cancel_requested) is state


def test_an_error_is_never_empty_beside_a_code() -> None:
    assert default_error(0) == ""
    for code in (1, -1, 255):
        assert str(code) in default_error(code)


def test_a_lease_ends_after_its_length() -> None:
    assert lease_end(5, 10) == 15
    assert lease_end(5, None) is None


def test_new_ids_are_sixteen_letters_and_digits_and_differ() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    for task_id in ids:
        assert len(task_id) == 16
        assert task_id.isascii()
        assert task_id.isalnum()
        assert ID_PATTERN.fullmatch(task_id)
    # Every character of the alphabet turns up at some place: 16,000 draws of 62.
    assert len(set("".join(ids))) == 62


def test_a_chunk_knows_its_end() -> None:
    assert Chunk(5, 3, b"").end == 8


def test_a_key_does_not_show_its_hash() -> None:
    key = ApiKey("id", "ci", "ann", frozenset({Scope.READ}), b"the hash", 0)
    assert "the hash" not in repr(key)


def test_now_is_microseconds() -> None:
    assert 1_700_000_000_000_000 < now_us() < 10_000_000_000_000_000
