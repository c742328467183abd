"""Settings -> preferences with scores -> weights fitted on all pairs, judged on pairs that they were not fitted on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from iqa_core.agreement import Floats
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.errors import DONE, CallerError, RunError
from iqa_core.fusion import Curve, FusionWeights, rated
from iqa_core.preferences.bradley_terry import PairAccuracy, fit_weights, judge, splits, tie_threshold
from iqa_core.preferences.pairs import load_pairs
from iqa_core.records import RATING
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from iqa_core.tables.scores.columns import dimensions_of
from iqa_core.tables.scores.score_table import score_ledger
from jobs.fusion.settings import FusionSettings

Split = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Compared:
    """Pairs of which both images have scores."""

    dimensions: tuple[str, ...]
    differences_PK: Floats
    shares_P: Floats
    groups: tuple[str, ...]
    unscored: int
    """Pairs left out, since an image is not in the table or was rejected."""
    undecided: int
    """Rows of the files that are no pair, since nobody chose."""
    curves: Mapping[str, Curve]
    """How scores became 1 to 5, where they are not."""


def fit(settings: FusionSettings) -> int:
    """Run the job; the exit code. Raises CallerError."""
    Storage(settings.storage_options).require_writable(absolute(settings.output), "--output", is_folder=False)
    compared = _compared(settings)
    undecided = f", {compared.undecided:,} rows in which nobody chose" if compared.undecided else ""
    print(f"pairs      {len(compared.shares_P):,} with scores, {compared.unscored:,} without{undecided}")
    raw = fit_weights(compared.differences_PK, compared.shares_P, signed=settings.signed)
    parts = _splits(compared, settings)
    for line in _report(compared, settings, parts):
        print(line)
    weights = raw / np.abs(raw).sum()
    rows = zip(compared.dimensions, weights, raw, strict=True)
    print("\n| dimension | weight | raw scale |\n|---|---|---|")
    print("\n".join(f"| {name} | {weight:.4f} | {scale:.4f} |" for name, weight, scale in rows))
    _write(settings, compared, weights)
    print(f"\nweights    {settings.output}")
    return DONE


def _compared(settings: FusionSettings) -> Compared:
    pairs = load_pairs(settings.pairs, settings.group_column)
    dimensions, curves, rows = _scores(settings)
    found = [(pair, rows.get(pair.first), rows.get(pair.second)) for pair in pairs]
    kept = [(pair, a, b) for pair, a, b in found if a is not None and b is not None]
    if not kept:
        raise CallerError(
            f"--scores {settings.scores}: no pair has both of its images scored there; pairs are like "
            f"{pairs.pairs[0].first}, keys like {next(iter(rows), 'none')}"
        )
    return Compared(
        dimensions,
        np.asarray([a - b for _, a, b in kept]),
        np.asarray([pair.share for pair, _, _ in kept]),
        tuple(pair.group for pair, _, _ in kept),
        len(found) - len(kept),
        pairs.undecided,
        curves,
    )


def _scores(settings: FusionSettings) -> tuple[tuple[str, ...], Mapping[str, Curve], Mapping[str, Floats]]:
    """Dimensions, their curves, and scores from 1 to 5 by key and by SHA-256.

    Raises CallerError on a key that means several images.
    """
    try:
        storage, place = Storage(settings.storage_options), absolute(settings.scores)
        contract, ledger = Plan(storage, place).contract(), score_ledger(storage, place)
        tables = [rows for _, rows in ledger.read_all(sorted(ledger.finished()))]
    except (RunError, Missing, Forbidden, FetchFailed) as error:
        raise CallerError(f"--scores {settings.scores}: {error}") from error
    if not tables:
        raise CallerError(f"--scores {settings.scores} has no score files")
    dimensions = contract.dimensions if contract else dimensions_of(tables[0].column_names)
    has_slots = contract is not None and bool(contract.slots.columns)
    rows: dict[str, Floats] = {}
    keys: Counter[str] = Counter()
    found = [table.filter(pc.equal(table["status"], "scored")) for table in tables]
    weights = FusionWeights.equal(dimensions).within(contract.scales if contract else {})
    if settings.normalise == "quantiles":
        weights = replace(weights, curves=_quantile_curves(found, dimensions, contract))
    for scored in found:
        values = [rated(scored[name].to_numpy().astype(np.float64), name, weights) for name in dimensions]
        values_NK = np.stack(values, axis=1)
        names_N = zip(scored["key"].to_pylist(), scored["sha256"].to_pylist(), values_NK, strict=True)
        for key, digest, value_K in names_N:
            keys[key] += 1
            rows[key] = value_K
            if not has_slots:  # the same picture with another text is another image
                rows[digest] = value_K
    if doubled := [key for key, count in keys.items() if count > 1]:
        raise CallerError(f"--scores {settings.scores}: {doubled[0]} is the key of several images; score them apart")
    return dimensions, weights.curves, rows


def _quantile_curves(
    scored: Sequence[pa.Table], dimensions: Sequence[str], contract: Contract | None
) -> dict[str, Curve]:
    """Raises CallerError, which names the dimension, where all scores are equal."""
    curves = {}
    for name in dimensions:
        values = np.concatenate([table[name].to_numpy() for table in scored])
        try:
            curves[name] = Curve.of_quantiles(values, contract.scale_of(name).range if contract else RATING)
        except CallerError as error:
            raise CallerError(f"--normalise quantiles: {name}: {error}") from None
    return curves


def _splits(compared: Compared, settings: FusionSettings) -> list[tuple[str, Split]]:
    """Name -> pairs to fit on and to judge on."""
    if not settings.hold_out:
        found = splits(compared.groups, settings.fit_pairs, settings.judge_pairs, settings.splits, settings.seed)
        return [(f"split {number}", parts) for number, parts in enumerate(found, start=1)]
    groups = np.asarray(compared.groups)
    names = sorted(set(compared.groups))
    if len(names) < 2 or "" in names:
        raise CallerError(f"--hold-out needs two groups or more, and one for every pair; there are {names[:5]}")
    return [(name, (np.flatnonzero(groups != name), np.flatnonzero(groups == name))) for name in names]


def _report(compared: Compared, settings: FusionSettings, parts: Sequence[tuple[str, Split]]) -> Iterator[str]:
    """A table per reward over all splits, and the weights of each split."""
    accuracies: dict[str, list[PairAccuracy]] = {}
    fitted = []
    for _, (fit_on, judge_on) in parts:
        rewards = _rewards(compared, fit_on, signed=settings.signed)
        fitted.append(rewards["fitted"])
        for name, weights_K in rewards.items():
            margins_P = compared.differences_PK @ weights_K
            threshold = tie_threshold(margins_P[fit_on], compared.shares_P[fit_on])
            found = judge(margins_P[judge_on], compared.shares_P[judge_on], threshold, seed=settings.seed)
            accuracies.setdefault(name, []).append(found)
    yield ""
    yield f"Judged on pairs that were not fitted on: means over {len(parts)} splits, and the interval of the first."
    yield ""
    yield "| reward | rank accuracy, ties wrong | 95 % | ties half | win/tie/lose |"
    yield "|---|---|---|---|---|"
    for name, each in accuracies.items():
        figures = [(found.ties_wrong, found.ties_half, found.three_way) for found in each]
        wrong, half, three = np.mean(figures, axis=0)
        yield f"| {name} | {wrong:.3f} | {each[0].low:.3f} to {each[0].high:.3f} | {half:.3f} | {three:.3f} |"
    yield ""
    yield f"| fitted on all but | {' | '.join(compared.dimensions)} |"
    yield f"|---|{'---|' * len(compared.dimensions)}"
    for (name, _), weights_K in zip(parts, fitted, strict=True):
        yield f"| {name} | {' | '.join(f'{weight:.3f}' for weight in weights_K)} |"


def _rewards(compared: Compared, fit_on: NDArray[np.int64], *, signed: bool) -> dict[str, Floats]:
    """Normalised weights of every reward that is compared."""
    count = len(compared.dimensions)
    raw = fit_weights(compared.differences_PK[fit_on], compared.shares_P[fit_on], signed=signed)
    single = {f"{name} alone": np.eye(count)[k] for k, name in enumerate(compared.dimensions)}
    return {"fitted": raw / np.abs(raw).sum(), "equal": np.full(count, 1 / count)} | single


def _write(settings: FusionSettings, compared: Compared, weights_K: Floats) -> None:
    source = f"Bradley-Terry on {len(compared.shares_P)} pairs, seed {settings.seed}"
    lines = [f"source = {json.dumps(source)}", "", "[weights]"]
    lines += [f"{name} = {weight:.6f}" for name, weight in zip(compared.dimensions, weights_K, strict=True)]
    if compared.curves:
        lines += ["", "[curves]"]
        lines += [f"{name} = {json.dumps(curve.to_json())}" for name, curve in compared.curves.items()]
    Storage(settings.storage_options).put(absolute(settings.output), ("\n".join(lines) + "\n").encode())
