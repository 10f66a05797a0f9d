"""jsontext: times as they are written in JSON."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskserver.jsontext import isotime, parse_time


def test_it_is_written_in_utc_with_microseconds() -> None:
    assert isotime(None) is None
    assert isotime(0) == "1970-01-01T00:00:00.000000Z"
    assert isotime(1_763_667_719_830_168) == "2025-11-20T19:41:59.830168Z"


@given(st.integers(0, 253_402_300_799_999_999))
def test_what_is_written_can_be_read(time_us: int) -> None:
    text = isotime(time_us)
    assert text is not None
    assert parse_time(text) == time_us


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(9998, 12, 31)),
    st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_any_offset_is_understood(moment: datetime, zone: timezone) -> None:
    aware = moment.replace(tzinfo=zone)
    expected = (aware - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)
    assert parse_time(aware.isoformat()) == expected


@pytest.mark.parametrize(
    ("text", "fraction"),
    [
        ("", 0),
        (".1", 100_000),
        (".000001", 1),
        (".123456", 123_456),
        (".1234567", 123_456),
        (".999999999", 999_999),
    ],
)
def test_any_precision_is_understood_and_what_is_below_microseconds_cut(text: str, fraction: int) -> None:
    for letters in ("T{}Z", "t{}z", " {}Z", "T{}+00:00", "T{}-00:00"):
        assert parse_time("1970-01-02" + letters.format("00:00:00" + text)) == 86_400_000_000 + fraction


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-20",
        "2026-11-20T19:41:59",
        "2026-11-20T19:41Z",
        "2026-11-20T19:41:59.Z",
        "2026-11-20T19:41:59.1234567890Z",
        "2026-11-20T19:41:59+0100",
        "2026-13-20T19:41:59Z",
        "2026-02-30T19:41:59Z",
        "2026-11-20T25:41:59Z",
        "2026-11-20T19:41:60Z",
        "2026-11-20T19:41:59+24:00",
        "2026-11-20T19:41:59Z ",
        "2026-11-20T19:41:59Z\n",
        "٢026-11-20T19:41:59Z",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00+00:01",
        "0000-01-01T00:00:00Z",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_time(text)
