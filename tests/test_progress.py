"""`Progress`: parts of parts add up, and what it is told to raise ends the work."""

from __future__ import annotations

import pytest

from progress import UNTOLD, Progress


def test_parts_of_parts_are_shares_of_the_whole() -> None:
    told: list[float] = []
    work = Progress(told.append)
    work(0.0)
    first, second = work.part(0.0, 0.5), work.part(0.5, 1.0)
    first(0.5)
    second.part(0.0, 0.5)(0.5)
    second(1.0)
    assert told == pytest.approx([0.0, 0.25, 0.625, 1.0])


def test_each_item_has_its_part_and_is_told_when_it_is_done() -> None:
    told: list[float] = []
    seen = []
    for part, item in Progress(told.append).part(0.5, 1.0).over("ab"):
        part(0.5)
        seen.append(item)
    assert seen == ["a", "b"]
    assert told == pytest.approx([0.625, 0.75, 0.875, 1.0])
    assert list(UNTOLD.over([])) == []


def test_what_it_raises_ends_the_work() -> None:
    def stop(share: float) -> None:
        if share >= 0.5:
            raise InterruptedError

    items = Progress(stop).over("abcd")
    assert [next(items)[1], next(items)[1]] == ["a", "b"]
    with pytest.raises(InterruptedError):
        next(items)
