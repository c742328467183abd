"""Figures of reasons -> Markdown for people and JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from iqa_core.agreement.figures import Figure
from iqa_core.agreement.matrix import ToldApart
from iqa_core.reasons.opposites import Contradictions
from iqa_core.reasons.texts import Nearness
from jobs.evaluation.reasons import CaptionOnly, Reasons, Sampling, TextFigures
from jobs.evaluation.report import NOTHING, label, shown, table, value


def reasons_to_json(found: Sequence[Reasons]) -> list[dict[str, Any]]:
    """Figures unrounded, an object for each assessor with any; what is not defined is null."""
    content = [asdict(one) for one in found]
    for one, own in zip(content, found, strict=True):
        for name, matrix in (("matrix", own.matrix), ("alone", own.alone)):
            if matrix is not None:
                one[name]["mixed_up"] = matrix.mixed_up
    return content


def reasons_to_markdown(found: Sequence[Reasons]) -> str:
    """Tables for people, the figures of each assessor below its own heading."""
    lines: list[str] = []
    for one in found:
        lines += ["", f"# Reasons: {label(one.about)}"]
        lines += _caption_lines(one.caption_only) if one.caption_only else []
        for part, figures in one.texts.items():
            lines += _text_lines(part, figures, one.texts_model)
        lines += _sampling_lines(one.sampling) if one.sampling else []
        lines += _matrix_lines(one.matrix, one.alone) if one.matrix else []
    return "\n".join(lines)


def _caption_lines(found: CaptionOnly) -> list[str]:
    return [
        "",
        "## What captions alone say",
        "",
        *table(_caption_rows(found)),
        "",
        f"On the {found.both:,} images with both numbers: {found.scored:,} have a score, and from the captions of",
        f"{found.read:,} a rating was read. Of these captions {found.with_digits:,} have a digit, and",
        f"{found.with_level_words:,} a word that says how good the image is.",
        *([""] if found.caption.flags else []),
        *(f"- its own caption: {flag}" for flag in found.caption.flags),
    ]


def _caption_rows(found: CaptionOnly) -> Iterator[list[str]]:
    yield ["the model sees", "images", "PLCC", "SRCC", "KRCC", "RMSE", "MAE"]
    for seen, own in (("the image", found.image), ("its own caption", found.caption)):
        yield [seen, f"{own.scored:,}", *map(shown, (own.plcc, own.srcc, own.krcc, own.rmse, own.mae))]
    both = found.difference
    yield ["image less caption", f"{both.pairs:,}", shown(both.plcc), shown(both.srcc), NOTHING, NOTHING, NOTHING]


def _text_lines(part: str, found: TextFigures, model: Mapping[str, str | int] | None) -> list[str]:
    own = found.rouge1
    lines = [
        "",
        f"## Beside people's texts: {part}",
        "",
        *table(_near_rows("ROUGE-1", own)),
        "",
        f"{own.images:,} images with {own.texts:,} texts of people; of {own.unwritten:,} more the model wrote none.",
    ]
    if found.meaning is not None and model is not None:
        lines += ["", *table(_near_rows("BERTScore", found.meaning)), ""]
        lines += [f"Embeddings of {model['folder']}, {model['layer']} layer; {model['cut']} texts were cut at"]
        lines += [f"{model['max_tokens']} tokens. Figures of two models cannot be compared."]
    if any(one.pairs for one in found.contradicted.values()):
        lines += ["", *table(_contradiction_rows(found.contradicted, found.contradicted_by_people))]
        lines += ["", "Pairs: two texts about one image that both take a side. Contradicted: share of opposite sides."]
    return lines


def _near_rows(title: str, found: Nearness) -> Iterator[list[str]]:
    names = tuple(found.all_raters)
    yield [title, "images", *names]

    def row(what: str, images: int, figures: Mapping[str, Figure]) -> list[str]:
        return [what, f"{images:,}", *(shown(figures[name]) for name in names)]

    yield row("model, all raters", found.images, found.all_raters)
    if found.all_samples:
        yield row(f"the same, mean of {found.samples / found.images:.3g} answers", found.images, found.all_samples)
    yield row("model, nearest rater", found.images, found.nearest_rater)
    if found.ceiling:
        yield row("a rater, nearest other rater", found.ceiling_images, found.ceiling)


def _contradiction_rows(
    model: Mapping[str, Contradictions], people: Mapping[str, Contradictions]
) -> Iterator[list[str]]:
    yield ["about", "pairs", "contradicted", "pairs of people", "contradicted"]
    for name, own in model.items():
        yield [name, f"{own.pairs:,}", shown(own.share), f"{people[name].pairs:,}", shown(people[name].share)]


def _sampling_lines(found: Mapping[str, Sampling]) -> list[str]:
    return ["", "## One answer and the mean of several", "", *table(_sampling_rows(found)), "", "PLCC / SRCC."]


def _sampling_rows(found: Mapping[str, Sampling]) -> Iterator[list[str]]:
    yield ["dimension", "images", "answers", "one", "mean of all"]
    for name, own in found.items():
        one, mean = (
            f"{shown(plcc)} / {shown(srcc)}"
            for plcc, srcc in ((own.one_plcc, own.one_srcc), (own.mean_plcc, own.mean_srcc))
        )
        yield [name, f"{own.images:,}", str(own.samples), one, mean]


def _matrix_lines(matrix: ToldApart, alone: ToldApart | None) -> list[str]:
    lines = ["", "## Are attributes told apart?", "", *table(_matrix_rows(matrix, alone)), ""]
    lines += ["SRCC of the scores of each row with the opinions of each column; the largest of a row is bold."]
    for own, how in ((matrix, ""), (alone, " that were asked alone")):
        if own is not None:
            told = len(own.scored) - len(own.mixed_up)
            lines += [f"{told} of {len(own.scored)} rows{how} have it in their own column{_named(own.mixed_up)}."]
    return lines


def _named(mixed_up: Sequence[str]) -> str:
    return f"; not {', '.join(mixed_up)}" if mixed_up else ""


def _matrix_rows(matrix: ToldApart, alone: ToldApart | None) -> Iterator[list[str]]:
    yield ["scores \\ opinions", *matrix.judged]
    others = dict(zip(alone.scored, alone.srcc, strict=True)) if alone is not None else {}
    for name, row in zip(matrix.scored, matrix.srcc, strict=True):
        yield [name, *_bold(row)]
        if name in others:
            yield [f"{name}, asked alone", *_bold(others[name])]


def _bold(row: Sequence[float | None]) -> Iterator[str]:
    largest = max((srcc for srcc in row if srcc is not None), default=None)
    for srcc in row:
        yield f"**{value(srcc)}**" if srcc is not None and srcc == largest else value(srcc)
