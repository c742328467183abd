"""Every difference is listed, each short enough to be read and long enough to be told apart."""

from __future__ import annotations

from iqa_core.differences import differences


def test_all_are_listed_by_name() -> None:
    there = {"b": 1, "a": True, "same": [1], "inner": {"x": 1, "y": 2}, "gone": "x", "unused": None}
    here = {"b": 2, "a": False, "same": (1,), "inner": {"x": 1, "y": 3}, "new": "y", "added since": None}
    assert differences(there, here) == [
        "a: True there, False now",
        "b: 1 there, 2 now",
        "gone: x there, absent now",
        "inner.y: 2 there, 3 now",
        "new: absent there, y now",
    ]
    assert differences(there, there) == []
    assert differences({"a": 1}, {"a": 2}, ("in the first", "in the second")) == ["a: 1 in the first, 2 in the second"]


def test_digests_are_cut_and_long_values_show_where_they_differ() -> None:
    assert differences({"w": "ab" * 32}, {"w": "cd" * 32}) == ["w: abababababab… there, cdcdcdcdcdcd… now"]
    words = " ".join(f"word{number}" for number in range(200))
    [shown] = differences({"system": f"{words} good {words}"}, {"system": f"{words} bad {words}"})
    assert len(shown) < 200
    assert " good word0" in shown
    assert " bad word0" in shown
    assert differences({"t": "x" * 100}, {"t": "x" * 101})[0].count("x") < 120
