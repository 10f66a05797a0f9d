"""The viewer's modules that need no page, each by itself, in the engine that will run them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.server import Server

CASES = json.loads((Path(__file__).parents[1] / "escapes.json").read_text(encoding="utf-8"))["cases"]

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """``run(script, argument)`` evaluates an async function of the modules (``ansi``, ``text`` …) and an argument."""
    with Server(tmp_path_factory.mktemp("modules")) as server:
        page = browser.new_page()
        page.goto(server.url)
        names = ("ansi", "text", "pages", "ranges")
        page.evaluate(
            """async ([url, names]) => {
              window.modules = {};
              for (const name of names) window.modules[name] = await import(`${url}/dashboard/output/${name}.js`);
            }""",
            [server.url, names],
        )
        yield lambda script, argument=None: page.evaluate(
            f"(argument) => (({{ {', '.join(names)} }}) => ({script})(argument))(window.modules)", argument
        )
        page.close()


PARTS = """(text) => ansi.parse(text).parts.map(({ text, style, link }) => {
  const set = Object.entries(style).filter(([, value]) => value !== null && value !== false);
  return [text, Object.fromEntries(set), link];
})"""


class TestEscapes:
    @pytest.mark.parametrize(("text", "plain"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
    def test_the_same_ones_are_taken_out_as_on_the_server(self, run: Run, text: str, plain: str) -> None:
        assert run("ansi.strip", text) == plain
        assert run("(text) => ansi.parse(text).parts.map((part) => part.text).join('')", text) == plain

    @pytest.mark.parametrize(
        ("codes", "style"),
        [
            ("1;31", {"bold": True, "fg": 1}),
            ("97;104", {"fg": 15, "bg": 12}),
            ("38;5;208", {"fg": 208}),
            ("48;5;17;1", {"bg": 17, "bold": True}),
            ("38;2;1;200;255", {"fg": "rgb(1, 200, 255)"}),
            ("38:2:1:200:255", {"fg": "rgb(1, 200, 255)"}),
            ("38:2::1:200:255", {"fg": "rgb(1, 200, 255)"}),
            ("38:5:9;4", {"fg": 9, "underline": True}),
            ("58;5;1;3", {"italic": True}),
            ("2;3;4;7;9", {"dim": True, "italic": True, "underline": True, "inverse": True, "strike": True}),
            ("4:3", {"underline": True}),
            ("1;4;22;24", {}),
            ("31;0", {}),
            ("31;", {}),
            ("31;39;7;27", {}),
            # What cannot be meant changes nothing.
            ("38;5;256", {}),
            ("38;2;1;2", {}),
            ("38;2;1;2;999", {}),
            ("5;8;53;1000", {}),
            ("?1", {}),
            (">4;1", {}),
        ],
    )
    def test_styles(self, run: Run, codes: str, style: dict[str, Any]) -> None:
        assert run(PARTS, f"\x1b[{codes}mx") == [["x", style, None]]

    def test_a_style_holds_until_it_is_changed(self, run: Run) -> None:
        assert run(PARTS, "a\x1b[1mb\x1b[31mc\x1b[md") == [
            ["a", {}, None],
            ["b", {"bold": True}, None],
            ["c", {"bold": True, "fg": 1}, None],
            ["d", {}, None],
        ]

    @pytest.mark.parametrize(
        ("address", "link"),
        [
            ("https://example.org/a?b=c", "https://example.org/a?b=c"),
            ("http://example.org", "http://example.org/"),
            ("javascript:alert(1)", None),
            (" javascript:alert(1)", None),
            ("data:text/html,x", None),
            ("file:///etc/passwd", None),
            ("//example.org", None),
            ("https://example.org/" + "x" * 3000, None),
        ],
    )
    def test_links_lead_to_the_web_only(self, run: Run, address: str, link: str | None) -> None:
        assert run(PARTS, f"\x1b]8;id=1;{address}\x07text\x1b]8;;\x07.") == [["text", {}, link], [".", {}, None]]

    def test_the_palette_of_256_is_xterms(self, run: Run) -> None:
        assert [run("ansi.paletteRgb", number) for number in (16, 208, 231, 232, 255)] == [
            "rgb(0, 0, 0)",
            "rgb(255, 135, 0)",
            "rgb(255, 255, 255)",
            "rgb(8, 8, 8)",
            "rgb(238, 238, 238)",
        ]


class TestLines:
    @pytest.mark.parametrize(
        ("whole", "shown"),
        [
            ("plain", "plain"),
            ("10%\r50%\r100%", "100%"),
            ("10%\r50%\r", "50%"),
            ("\r\r", ""),
            ("a\r\r\r", "a"),
            ("\x1b[31mred\rstill red", "\x1b[31mstill red"),
            ("\x1b[31mred\x1b[0m\rplain", "\x1b[0mplain"),
        ],
    )
    def test_of_a_progress_bar_the_last_state_is_shown(self, run: Run, whole: str, shown: str) -> None:
        assert run("text.compact", whole) == {"text": shown, "cut": 0}

    def test_a_long_line_is_cut_and_keeps_its_effect_on_colours(self, run: Run) -> None:
        shown = run("text.compact", "\x1b[32m" + "x" * 100_000 + "\x1b[1m" + "y" * 100_000 + "\x1b[34m")
        assert shown["cut"] == 200_014
        assert len(shown["text"]) < 6000
        assert shown["text"].endswith("x\x1b[1m\x1b[34m")

    def test_no_character_is_cut_in_two(self, run: Run) -> None:
        shown = run("text.compact", "x" + "🎈" * 10_000)
        assert shown["text"] == "x" + "🎈" * 2499

    def test_what_would_not_be_seen_is_named(self, run: Run) -> None:
        assert run("text.pieces", "a\0b\x1b\x7f\u202ec\u2066\u200b\x9b\tä🎈") == [
            "a",
            {"shown": "^@", "name": "U+0000"},
            "b",
            {"shown": "^[", "name": "U+001B"},
            {"shown": "^?", "name": "U+007F"},
            {"shown": "U+202E", "name": "U+202E"},
            "c",
            {"shown": "U+2066", "name": "U+2066"},
            {"shown": "U+200B", "name": "U+200B"},
            {"shown": "U+009B", "name": "U+009B"},
            "\tä🎈",
        ]

    def test_occurrences(self, run: Run) -> None:
        find = "([line, needle, caseCounts]) => text.occurrences(line, needle, caseCounts)"
        assert run(find, ["an Error, error", "error", False]) == [[3, 8], [10, 15]]
        assert run(find, ["an Error, error", "error", True]) == [[10, 15]]
        assert run(find, ["aaaa", "aa", True]) == [[0, 2], [2, 4]]
        assert run(find, ["İi", "i", False]) == []  # would be in the wrong place


class TestRanges:
    @pytest.mark.parametrize(
        ("hash_", "lines"),
        [
            ("#L1", [0, 0]),
            ("#L120-L140", [119, 139]),
            ("#L120-140", [119, 139]),
            ("#L140-L120", [119, 139]),
            ("", None),
            ("#L0", None),
            ("#L-5", None),
            ("#L1-", None),
            ("#Lx", None),
            ("#L99999999999", None),
        ],
    )
    def test_a_hash_names_lines(self, run: Run, hash_: str, lines: list[int] | None) -> None:
        assert run("ranges.parseHash", hash_) == lines

    def test_a_hash_is_read_as_it_is_written(self, run: Run) -> None:
        assert [run("ranges.formatHash", lines) for lines in ([0, 0], [119, 139])] == ["#L1", "#L120-L140"]


class TestPages:
    def test_lines_are_kept_once_in_order_and_without_gaps(self, run: Run) -> None:
        assert run(
            """() => {
              const kept = new pages.Pages();
              const put = (n, text) => kept.put(n, { text });
              put(5, "no beginning"); put(0, "a"); put(1, "b"); put(1, "again"); put(3, "gap");
              return [kept.get(0).text, kept.get(1).text, kept.get(3), kept.get(5), kept.missing(0, 1000), kept.size];
            }"""
        ) == ["a", "b", None, None, {"first": 2, "count": 254}, 2]

    def test_the_pages_that_were_not_used_for_longest_are_forgotten(self, run: Run) -> None:
        assert run(
            """() => {
              const kept = new pages.Pages(3);
              for (const page of [0, 1, 2]) kept.put(page * pages.PAGE, { text: "x" });
              kept.get(0);
              kept.put(3 * pages.PAGE, { text: "x" });
              return [0, 1, 2, 3].map((page) => kept.get(page * pages.PAGE) !== null);
            }"""
        ) == [True, False, True, True]

    def test_long_lines_count_by_their_length_and_the_newest_page_stays(self, run: Run) -> None:
        assert run(
            """() => {
              const kept = new pages.Pages(100, 1000);
              for (let page = 0; page < 5; page += 1) kept.put(page * pages.PAGE, { text: "x".repeat(600) });
              return [kept.pages.size, kept.size, kept.get(4 * pages.PAGE) !== null];
            }"""
        ) == [1, 600, True]

    def test_pages_that_are_wanted_stay_however_long_their_lines_are(self, run: Run) -> None:
        assert run(
            """() => {
              const kept = new pages.Pages(100, 1000);
              const put = (page) => kept.put(page * pages.PAGE, { text: "x".repeat(600) });
              const here = () => [...kept.pages.keys()].sort();
              kept.want([1, 2, 3]);
              for (const page of [1, 2, 3, 4]) put(page);
              const all = here();
              put(5);
              const others = here();
              kept.want([5]);
              return [all, others, here()];
            }"""
        ) == [[1, 2, 3, 4], [1, 2, 3, 5], [5]]

    def test_nothing_is_missing_of_a_page_that_the_output_ends_in(self, run: Run) -> None:
        assert run(
            """() => {
              const kept = new pages.Pages();
              for (let n = 0; n < 10; n += 1) kept.put(n, { text: "x" });
              return [kept.missing(0, 10), kept.missing(0, 12), kept.missing(1, 12)];
            }"""
        ) == [None, {"first": 10, "count": 2}, None]

    def test_a_style_is_carried_over_lines_and_pages_whichever_comes_first(self, run: Run) -> None:
        assert run(
            r"""() => {
              const kept = new pages.Pages();
              const fill = (page, text) => {
                for (let n = 0; n < pages.PAGE; n += 1) kept.put(page * pages.PAGE + n, { text: n === 9 ? text : "x" });
              };
              fill(1, "y");
              const alone = kept.styleAt(pages.PAGE + 20).fg;
              fill(0, "\x1b[31mred");
              const after = kept.styleAt(pages.PAGE + 20).fg;
              return [alone, after, kept.styleAt(9).fg, kept.styleAt(10).fg];
            }"""
        ) == [None, 1, None, 1]
