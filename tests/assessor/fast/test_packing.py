"""The flat sequence against attention over one whole prompt at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from iqa_core.assessor.fast.packing import Packing, PromptLengths, attend, attend_last, packing_of, suffix_index
from tests.assessor.varlen_kernels import attend_each

pytestmark = pytest.mark.slow

HEADS, KEY_HEADS, WIDTH = 4, 2, 8
CPU = torch.device("cpu")
LENGTHS = st.builds(PromptLengths, st.integers(1, 7), st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple))
CHECKLISTS = st.builds(PromptLengths, st.integers(1, 7), st.lists(st.integers(1, 40), min_size=8).map(tuple))
"""So many suffixes that they take several rows of the batched call, with several in each."""


@st.composite
def viewed(draw: st.DrawFn, prompts: st.SearchStrategy[PromptLengths]) -> PromptLengths:
    """Prompts whose suffixes see some tokens of the prefix: one view for several suffixes in a row, as is usual."""
    image = draw(prompts)
    every = range(image.prefix)
    some = [tuple(sorted(draw(st.sets(st.sampled_from(every), min_size=1)))) for _ in range(3)]
    alike = draw(st.integers(1, len(image.suffixes)))
    return replace(image, views=tuple(some[k // alike % 3] for k in range(len(image.suffixes))))


BATCHES = st.lists(LENGTHS | CHECKLISTS | viewed(LENGTHS) | viewed(CHECKLISTS), min_size=1, max_size=3).map(tuple)


def heads_of(packing: Packing) -> list[torch.Tensor]:
    torch.manual_seed(packing.begins[-1])
    return [torch.randn(packing.begins[-1], heads, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]


def prompt_rows(packing: Packing) -> list[list[int]]:
    """Rows of the flat sequence that the suffix of every prompt sees, and its own."""
    rows = []
    for begin, image in zip(packing.begins, packing.images, strict=False):
        views = image.views or [range(image.prefix)] * len(image.suffixes)
        for last, size, view in zip(image.lasts, image.suffixes, views, strict=True):
            rows.append([begin + place for place in view] + list(range(begin + last + 1 - size, begin + last + 1)))
    return rows


def plain_attention(packing: Packing, heads: list[torch.Tensor]) -> torch.Tensor:
    attended = torch.empty_like(heads[0])

    def attend_rows(rows: list[int], num_own: int) -> None:
        query, key, value = (part[rows].transpose(0, 1)[None] for part in heads)
        found = scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.5, enable_gqa=True)
        attended[rows[-num_own:]] = found[0].transpose(0, 1)[-num_own:]

    for begin, image in zip(packing.begins, packing.images, strict=False):
        attend_rows(list(range(begin, begin + image.prefix)), image.prefix)
    sizes = [size for image in packing.images for size in image.suffixes]
    for rows, size in zip(prompt_rows(packing), sizes, strict=True):
        attend_rows(rows, size)
    return attended


@settings(max_examples=40, deadline=None)
@given(BATCHES)
def test_every_token_sees_its_own_prompt_up_to_itself(images: tuple[PromptLengths, ...]) -> None:
    packing = packing_of(images, CPU)
    heads = heads_of(packing)
    expected = plain_attention(packing, heads)
    query, key, value = heads
    torch.testing.assert_close(attend(packing, query, key, value, 0.5), expected, atol=1e-5, rtol=0)
    last = attend_last(packing, query[packing.read_R], key, value, 0.5)
    torch.testing.assert_close(last, expected[packing.read_R], atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(BATCHES)
def test_the_index_for_one_call_holds_the_same_prompts(images: tuple[PromptLengths, ...]) -> None:
    """What a GPU's attention over sequences of different lengths gets; it counts causality from the ends."""
    packing = packing_of(images, CPU)
    query, key, value = heads_of(packing)
    index, ends = packing.varlen, packing.varlen.ends
    keys, values = key[index.key_rows], value[index.key_rows]
    bounds = ends.query, ends.key, ends.longest_query, ends.longest_key
    attended = attend_each(query, keys, values, *bounds, scale=0.5, window_size=(-1, 0))
    torch.testing.assert_close(attended, plain_attention(packing, [query, key, value]), atol=1e-5, rtol=0)


@given(BATCHES)
def test_rows_leave_out_padding_and_nothing_else(images: tuple[PromptLengths, ...]) -> None:
    packing = Packing(images, CPU)
    assert len(packing.rows_S) == sum(image.total for image in images)
    assert packing.is_padded == (len(packing.rows_S) < len(images) * packing.width)
    whole = packing_of(tuple(replace(image, views=None) for image in images), CPU)
    assert [len(rows) - 1 for rows in prompt_rows(whole)] == packing.within_S[packing.read_R].tolist()


def test_what_is_kept_of_a_checklists_suffixes_is_small() -> None:
    """Up to 64 are kept; with the prefix in them, one for 256 statements behind 1,300 tokens took 14 MB."""
    suffixes = tuple(12 + i % 9 for i in range(256))
    kept = [part for part in vars(suffix_index(suffixes, CPU)).values() if isinstance(part, torch.Tensor)]
    assert sum(part.nbytes for part in kept) <= 2**20


def test_indices_with_views_go_with_their_packing() -> None:
    """Each image has views of its own: in the cache they would drive out those that all images share."""
    suffix_index.cache_clear()
    images = tuple(PromptLengths(7, (3, 3), ((k,), (k, k + 1))) for k in range(5))
    packing = Packing((*images, PromptLengths(7, (3, 3))), CPU)
    assert packing.suffixes is packing.suffixes
    assert suffix_index.cache_info().currsize == 1
    assert packing.suffixes[-1] is suffix_index((3, 3), CPU)
