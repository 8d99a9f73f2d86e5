"""Adapters' products on CPU: for each row its own adapter's, and nothing for the base's rows."""

import pytest

pytest.importorskip("vllm")
pytest.importorskip("vllm.platforms.cpu")

import torch

from serve.vllm_lora import LoraByAdapter, rows_by_adapter

SLOTS, RANK, WIDTH = 3, 4, 16
SLICES = (8, 4, 4)
"""Outputs of a layer that vLLM has put together, such as query, key and value."""


def wrapper(slots: list[int]) -> LoraByAdapter:
    """vLLM's wrapper in a step of these rows, told in vLLM's own way."""
    from vllm.lora.layers import LoRAMapping

    made = LoraByAdapter(max_num_batched_tokens=64, max_batches=64, device="cpu")
    ids = tuple(slot + 1 for slot in slots)
    mapping = LoRAMapping(index_mapping=ids, prompt_mapping=ids, is_prefill=True)
    made.update_metadata(mapping, [1, 2, 3], SLOTS, 100)
    return made


def stacked(seed: int) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    make = torch.Generator().manual_seed(seed)
    a = tuple(torch.randn(SLOTS, 1, RANK, WIDTH, generator=make) for _ in SLICES)
    b = tuple(torch.randn(SLOTS, 1, size, RANK, generator=make) for size in SLICES)
    return a, b


@pytest.mark.parametrize(
    "slots",
    [[0], [0, 0, 0], [2, 2, 1, 1, 1], [-1, -1], [-1, 0, 2, 0, -1, 1, 1], [1, 1, -1, 1]],
)
def test_every_row_gets_its_own_adapters_share_and_the_bases_none(slots: list[int]) -> None:
    a, b = stacked(1)
    x, y = torch.randn(len(slots), WIDTH), torch.randn(len(slots), sum(SLICES))
    expected = y.clone()
    for row, slot in enumerate(slots):
        if slot >= 0:
            shares = [b[i][slot, 0] @ (a[i][slot, 0] @ x[row]) * 0.5 for i in range(len(SLICES))]
            expected[row] += torch.cat(shares)
    wrapper(slots).add_lora_linear(y, x, a, b, 0.5, SLICES)
    torch.testing.assert_close(y, expected)


def test_the_products_are_vllms_own_but_for_rounding() -> None:
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    slots = [0, 1, 1, 2, 0]
    a, b = stacked(2)
    made = wrapper(slots)
    x, y = torch.randn(len(slots), WIDTH), torch.randn(len(slots), sum(SLICES))
    theirs = y.clone()
    PunicaWrapperCPU.add_lora_linear(made, theirs, x, a, b, 1.0, SLICES)
    made.add_lora_linear(y, x, a, b, 1.0, SLICES)
    torch.testing.assert_close(y, theirs)


def test_a_step_of_three_dimensions_is_taken_row_by_row() -> None:
    a, b = stacked(3)
    x, y = torch.randn(1, 2, WIDTH), torch.zeros(1, 2, sum(SLICES))
    flat = y[0].clone()
    made = wrapper([0, -1])
    made.add_lora_linear(y, x, a, b, 1.0, SLICES)
    made.add_lora_linear(flat, x[0], a, b, 1.0, SLICES)
    torch.testing.assert_close(y[0], flat)
    assert not y[0, 1].any()


def test_rows_that_follow_each_other_are_not_copied() -> None:
    rows = rows_by_adapter(torch.tensor([1, 1, -1, 0, 2, 0]))
    assert [each.slot for each in rows] == [0, 1, 2]
    assert (rows[1].which, rows[2].which) == (slice(0, 2), slice(4, 5))
    assert isinstance(rows[0].which, torch.Tensor)
    assert rows[0].which.tolist() == [3, 5]


def test_vllm_takes_our_products_by_the_name_that_it_is_given() -> None:
    from vllm.lora.punica_wrapper.punica_selector import resolve_obj_by_qualname
    from vllm.platforms.cpu import CpuPlatform

    assert resolve_obj_by_qualname(CpuPlatform.get_punica_wrapper()) is LoraByAdapter
