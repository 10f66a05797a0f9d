"""Searching a task's output (PROTOCOLS.md, A5)."""

from __future__ import annotations

from aiohttp import web

from taskserver.api.tasks.answers import json_answer
from taskserver.api.tasks.schemas import SearchQuery
from taskserver.searching import Needle
from taskserver.web.context import caller, services
from taskserver.web.params import query

SEARCH_QUERY = SearchQuery()


async def search_output(request: web.Request) -> web.StreamResponse:
    """The lines that hold a text.

    Each request looks through a part of the output; the next one goes on at `next`.
    """
    args = query(request, SEARCH_QUERY)
    found = await services(request).tasks.search(
        caller(request),
        request.match_info["id"],
        Needle(args["q"], case=args["case"]),
        args["first"],
        args["limit"],
    )
    return json_answer(
        {
            "first": found.first,
            "next": found.end,
            "last": found.task.last,
            "finished": found.complete,
            "count": found.count,
            "lines": found.lines,
        }
    )
