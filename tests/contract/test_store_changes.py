"""Store: what the listener is told, many callers at once, and the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from taskserver.encoding import decode_texts
from taskserver.errors import (
    AppendConflict,
    StoreUnavailable,
    TaskExists,
    TaskFinished,
    TaskNotFinished,
    TaskNotFound,
    TaskServerError,
)
from taskserver.model import ApiKey, Outcome, Scope, TaskState
from taskserver.partial import Partial, Unfinished
from taskserver.store import Appended, Change, Store
from tests.contract.helpers import NOW, SECOND, SUCCESS, Opener, Recorder, create, finished, lines, texts
from tests.eventually import eventually


class TestChanges:
    async def test_every_step_of_a_task_is_told(self, store: Store, changes: Recorder) -> None:
        created = await create(store, lease=5)
        assert changes.take() == [Change(created)]

        await store.append("build", lines("a", "b"), None, NOW + 1)
        (change,) = changes.take()
        assert change.task == await store.get_task("build")
        assert change.chunk is not None
        assert (change.chunk.first, decode_texts(change.chunk.payload)) == (0, ["a", "b"])

        beaten = await store.heartbeat("build", NOW + 2)
        assert changes.take() == [Change(beaten)]

        asked = await store.request_cancel("build", NOW + 3)
        assert changes.take() == [Change(asked)]

        ended = await store.finish("build", SUCCESS, NOW + 4)
        assert changes.take() == [Change(ended)]

        await store.delete_task("build")
        assert changes.take() == [Change(ended, deleted=True)]

    async def test_an_interrupted_task_is_told(self, store: Store, changes: Recorder) -> None:
        await create(store, lease=1)
        changes.take()
        (lost,) = await store.expire_leases(NOW + 2 * SECOND)
        assert changes.take() == [Change(lost)]

    async def test_what_fails_or_changes_nothing_tells_no_line_and_no_end(
        self, store: Store, changes: Recorder
    ) -> None:
        await finished(store, "done", "a")
        await create(store, "live")
        await store.append("live", lines("a"), None, NOW)
        changes.take()
        results = await asyncio.gather(
            create(store, "live"),
            store.append("none", lines("x"), None, NOW),
            store.append("live", lines("x"), 0, NOW),
            store.append("done", lines("x"), None, NOW),
            store.finish("live", SUCCESS, NOW, lines("x"), 0),
            store.finish("done", Outcome(1, "no"), NOW),
            store.delete_task("live"),
            store.append("live", lines("a"), 0, NOW),
            store.finish("done", SUCCESS, NOW, lines("a")),
            store.expire_leases(NOW + SECOND),
            return_exceptions=True,
        )
        kinds = [type(result) for result in results if isinstance(result, Exception)]
        assert kinds == [
            TaskExists,
            TaskNotFound,
            AppendConflict,
            TaskFinished,
            AppendConflict,
            TaskFinished,
            TaskNotFinished,
        ]
        assert changes.take() == []

    async def test_it_is_told_before_the_caller_is_answered(self, store: Store, changes: Recorder) -> None:
        await create(store)

        async def produce(text: str) -> None:
            answer = await store.append("build", lines(text), None, NOW)
            told = changes.of("build")[-1]
            assert told.chunk is not None
            assert told.chunk.end == told.task.last >= answer.last

        await asyncio.gather(*(produce("x") for _ in range(20)))
        ended = await store.finish("build", SUCCESS, NOW)
        assert changes.of("build")[-1].task == ended

    async def test_it_is_told_on_the_event_loop(self, store: Store) -> None:
        loops: list[asyncio.AbstractEventLoop] = []
        store.listen(lambda changes: loops.append(asyncio.get_running_loop()))
        await create(store)
        assert loops == [asyncio.get_running_loop()]

    async def test_the_last_listener_is_the_one(self, store: Store, changes: Recorder) -> None:
        other = Recorder()
        store.listen(other)
        await create(store)
        assert len(other.changes) == 1
        assert changes.changes == []

    async def test_changes_of_many_tasks_tell_each_ones_story_in_order(self, store: Store, changes: Recorder) -> None:
        names = [f"t{number}" for number in range(8)]

        async def produce(task_id: str) -> None:
            await create(store, task_id)
            for number in range(10):
                await store.append(task_id, lines(f"{task_id} {number}"), number, NOW)
            await store.finish(task_id, SUCCESS, NOW, lines("end"))

        await asyncio.gather(*map(produce, names))
        for name in names:
            told = [text for change in changes.of(name) if change.chunk for text in decode_texts(change.chunk.payload)]
            assert told == [*(f"{name} {number}" for number in range(10)), "end"]
            last = 0
            for change in changes.of(name):
                if change.chunk is not None:
                    assert change.chunk.first == last
                    last = change.chunk.end
                assert change.task.last == last
            assert changes.of(name)[-1].task == await store.get_task(name)


class TestManyAtOnce:
    async def test_producers_on_one_task_get_dense_numbers(self, store: Store, changes: Recorder) -> None:
        task = await create(store)

        async def produce(producer: int) -> dict[int, str]:
            acknowledged: dict[int, str] = {}
            for number in range(20):
                batch = [f"{producer}.{number}.{part}" for part in range(1 + (producer + number) % 3)]
                answer = await store.append("build", lines(*batch), None, NOW)
                assert answer.last == answer.first + len(batch)
                acknowledged.update(enumerate(batch, answer.first))
            return acknowledged

        parts = await asyncio.gather(*(produce(producer) for producer in range(30)))
        together = {number: text for part in parts for number, text in part.items()}
        assert sum(map(len, parts)) == len(together)
        output = await texts(store, task.log)
        assert output == [together[number] for number in range(len(together))]
        assert (await store.get_task("build")).last == len(output)
        told = [text for change in changes.of("build") if change.chunk for text in decode_texts(change.chunk.payload)]
        assert told == output

    async def test_of_two_producers_with_one_cursor_one_wins(self, store: Store) -> None:
        task = await create(store)
        for first in range(20):
            answers = await asyncio.gather(
                *(store.append("build", lines(text), first, NOW) for text in ("a", "b")), return_exceptions=True
            )
            kinds = [type(answer) for answer in answers]
            assert sorted(kind.__name__ for kind in kinds) == ["AppendConflict", "Appended"]
        assert len(await texts(store, task.log)) == 20

    async def test_the_same_append_twice_at_once_stands_once(self, store: Store) -> None:
        task = await create(store)
        answers = await asyncio.gather(*(store.append("build", lines("a", "b"), 0, NOW) for _ in range(10)))
        assert answers == [Appended(0, 2)] * 10
        assert await texts(store, task.log) == ["a", "b"]

    async def test_an_append_that_races_the_end_is_kept_or_refused(self, store: Store) -> None:
        for number in range(20):
            task = await create(store, f"t{number}")
            appends = [store.append(task.id, lines(f"{part}"), None, NOW) for part in range(6)]
            calls = [*appends[:3], store.finish(task.id, SUCCESS, NOW, lines("end")), *appends[3:]]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            kept = [answer for answer in answers if isinstance(answer, Appended)]
            refused = [answer for answer in answers if isinstance(answer, TaskFinished)]
            assert len(kept) + len(refused) == 6
            output = await texts(store, task.log)
            assert output[-1] == "end"
            assert len(output) == len(kept) + 1 == (await store.get_task(task.id)).last

    async def test_one_of_the_same_ends_and_one_of_different_ends_stands(self, store: Store) -> None:
        await create(store)
        same = await asyncio.gather(*(store.finish("build", SUCCESS, NOW, lines("x"), 0) for _ in range(5)))
        assert same == [same[0]] * 5
        await create(store, "other")
        outcomes = [Outcome(code, "e") for code in range(1, 6)]
        answers = await asyncio.gather(
            *(store.finish("other", outcome, NOW) for outcome in outcomes), return_exceptions=True
        )
        (winner,) = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert await store.get_task("other") == winner

    async def test_one_of_many_gets_an_id(self, store: Store) -> None:
        answers = await asyncio.gather(
            *(create(store, owner=f"o{number}") for number in range(10)), return_exceptions=True
        )
        (winner,) = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert await store.get_task("build") == winner

    async def test_a_whole_life_in_one_moment(self, store: Store, changes: Recorder) -> None:
        calls = [
            create(store),
            store.append("build", lines("a"), 0, NOW),
            store.append("build", lines("b"), None, NOW),
            store.heartbeat("build", NOW),
            store.request_cancel("build", NOW),
            store.append("build", lines("c"), None, NOW),
            store.finish("build", Outcome(1, "stopped"), NOW, lines("d")),
            store.delete_task("build"),
            create(store, owner="bob"),
            store.append("build", lines("e"), 0, NOW),
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [answer for answer in answers if isinstance(answer, BaseException)] == []
        assert answers[5] == Appended(2, 3, cancel_requested=True)
        task = await store.get_task("build")
        assert (task.owner, task.state, task.last) == ("bob", TaskState.RUNNING, 1)
        assert await texts(store, task.log) == ["e"]
        told = changes.of("build")
        ends = [change.task.state for change in told if change.task.finished and not change.deleted]
        assert ends == [TaskState.CANCELLED]
        assert [change.deleted for change in told].count(True) == 1
        assert told[-1].task == task


class TestFaults:
    async def test_one_failing_call_does_not_spoil_the_others(self, store: Store) -> None:
        task = await create(store)
        broken = ApiKey("k", "lone \ud800 surrogate", "ann", frozenset({Scope.READ}), b"h", NOW)
        calls = [
            store.append("build", lines("a"), 0, NOW),
            store.append("none", lines("x"), None, NOW),
            store.add_key(broken),  # text that no database can keep
            store.append("build", lines("b"), 1, NOW),
            create(store, "build"),
            store.append("build", lines("c"), 2, NOW),
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert answers[0] == Appended(0, 1)
        assert isinstance(answers[1], TaskNotFound)
        assert isinstance(answers[2], TaskServerError)
        assert answers[3] == Appended(1, 2)
        assert isinstance(answers[4], TaskExists)
        assert answers[5] == Appended(2, 3)
        assert await texts(store, task.log) == ["a", "b", "c"]
        assert await store.list_keys() == []

    async def test_a_caller_who_leaves_does_not_break_the_others(self, store: Store) -> None:
        task = await create(store)
        calls = [asyncio.ensure_future(store.append("build", lines(f"{number}"), None, NOW)) for number in range(30)]
        await asyncio.sleep(0)  # all are under way now
        for call in calls[::3]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        output = await texts(store, task.log)
        for number, answer in enumerate(answers):
            if isinstance(answer, Appended):
                assert output[answer.first] == f"{number}"
            else:
                assert isinstance(answer, asyncio.CancelledError)
                assert output.count(f"{number}") <= 1
        assert sum(isinstance(answer, Appended) for answer in answers) >= 20
        assert (await store.append("build", lines("next"), len(output), NOW)).last == len(output) + 1

    async def test_a_reader_who_leaves_does_not_break_the_others(self, store: Store) -> None:
        task = await finished(store, "build", "a")
        calls = [asyncio.ensure_future(texts(store, task.log)) for _ in range(10)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert [call.result() for call in calls[1::2]] == [["a"]] * 5
        assert await texts(store, task.log) == ["a"]


class TestClose:
    async def test_finishes_what_is_under_way_and_then_refuses(self, opener: Opener[Store], tmp_path: Path) -> None:
        store = await opener(tmp_path)
        task = await create(store)
        calls = [asyncio.ensure_future(store.append("build", lines(f"{number}"), None, NOW)) for number in range(10)]
        await asyncio.sleep(0)
        await store.close()
        assert [answer.last for answer in await asyncio.gather(*calls)] == list(range(1, 11))
        for call in (store.append("build", lines("x"), None, NOW), store.get_task("build"), store.ping()):
            with pytest.raises(StoreUnavailable):
                await call
        with pytest.raises(StoreUnavailable):
            await store.read(task.log, 0, 9, 99)

        again = await opener(tmp_path)
        assert await texts(again, task.log) == [f"{number}" for number in range(10)]
        await again.close()

    async def test_a_repeat_does_nothing(self, opener: Opener[Store], tmp_path: Path) -> None:
        store = await opener(tmp_path)
        await store.ping()
        await store.close()
        await store.close()
        await asyncio.gather(store.close(), store.close())
        again = await opener(tmp_path)
        await again.ping()
        await again.close()


async def test_what_is_told_is_reported_and_stored_nowhere(store: Store) -> None:
    recorder = Recorder()
    store.listen(recorder)
    task = await create(store)
    await store.append("build", lines("a"), None, NOW)
    recorder.take()
    bar = Partial(task.log, 1, Unfinished("", "50% \u2588 \x1b[0m"))
    store.tell(bar)
    await eventually(lambda: recorder.partials == [bar], "the report")
    assert recorder.take() == []
    assert (await store.get_task("build")).last == 1
