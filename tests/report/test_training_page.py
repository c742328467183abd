"""The page of a training: charts of any length, and texts of a model, of which nothing is taken for HTML.

Tests iqa_core/report/templates.py and the curves of iqa_core/report/charts.py.
"""

from __future__ import annotations

import re

import pytest

from iqa_core.report.charts import MAX_POINTS, Curve, curves
from iqa_core.report.training_page import Answer, Chart, Example, Section, TrainingReport, render_training

LOSS = Chart("loss", [Curve("loss", [(1, 2.0), (5, 1.5)])])
RATED = Answer(5, "<b>bright</b> & \u202ewide\nq: 3", {"quality": 3.0, "layout": 2.0})
UNPARSED = Answer(10, "no-number: <script>alert(1)</script>", None)


def places(drawn: str, series: int = 0) -> list[tuple[float, float]]:
    [path] = re.findall(rf'line{series}" points="([^"]*)"', drawn)
    return [(float(x), float(y)) for x, y in (place.split(",") for place in path.split())]


def page(**changes: object) -> str:
    values = {"title": "t", "facts": [], "attention": [], "sections": [], "examples": []}
    return render_training(TrainingReport(**{**values, **changes})).decode()  # type: ignore[arg-type]


def test_lines_share_an_axis_that_holds_its_bounds() -> None:
    drawn = curves("parsed", [Curve("greedy", [(10, 0.5), (30, 1.0)]), Curve("single", [(20, 0.25)])], (0.0, 1.0))
    (left, middle), (right, top) = places(drawn)
    [(between, low)] = places(drawn, 1)
    assert left < between < right
    assert between - left == pytest.approx((right - left) / 2, abs=0.1)
    base = middle + (middle - top)
    assert low == pytest.approx(base - (base - top) / 4, abs=0.1)
    assert "greedy 0.5 at step 10, 1 at step 30; single 0.25 at step 20" in drawn


def test_a_constant_is_a_line_in_the_middle_of_its_axis() -> None:
    for value in (0.0, -3.0):
        (_, y), (_, other) = places(curves("x", [Curve("x", [(1, value), (2, value)])], ()))
        assert y == other
        assert 50 < y < 80
    (_, y), _ = places(curves("cut", [Curve("cut", [(1, 0.0), (2, 0.0)])], (0.0,)))
    assert y > 110, "nothing, where nothing is the least, lies at the foot"


def test_a_long_run_has_no_larger_chart() -> None:
    drawn = curves("loss", [Curve("loss", [(step, float(step % 2)) for step in range(10_000)])], ())
    assert len(places(drawn)) == MAX_POINTS
    assert {y for _, y in places(drawn)} == {places(drawn)[0][1]}, "means of neighbours"
    assert "circle" not in drawn
    assert "step 9,999" in drawn


def test_texts_stand_by_step_with_their_numbers_beside_the_opinions() -> None:
    example = Example("<a>.png", "data:image/jpeg;base64,AA==", {"quality": 4.0}, [RATED, UNPARSED])
    shown = page(sections=[Section("<Learning>", [LOSS])], examples=[example], attention=[("since step 30", "<i>")])
    assert "<b>" not in shown
    assert "<script" not in shown
    assert "<i>" not in shown
    assert "&lt;b&gt;bright&lt;/b&gt; &amp;" in shown
    assert 'alt="&lt;a&gt;.png"' in shown
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>(.*)</tr>", shown, re.DOTALL)]
    cells = [cell for row in rows for cell in row]
    assert cells[:8] == ["people", "4.00", "–", "", "step 5", "3.00", "2.00", cells[7]]
    assert cells[8:11] == ["step 10", "–", "–"]
    assert re.search(r"src=\"(?!data:)|https?://|<link", shown) is None, "nothing is fetched"


def test_an_image_that_cannot_be_shown_keeps_its_texts() -> None:
    shown = page(examples=[Example("gone.png", "", {}, [RATED])])
    assert "<img" not in shown
    assert "bright" in shown
    assert "b\\udce9.png" in page(examples=[Example("b\udce9.png", "", {}, [])]), "a name that is not UTF-8"
    assert "Attention" not in page()
