"""Attention of a whole pack in one call: where the kernel is right, and only there."""

from typing import Any

import pytest
import torch

from llmkit.models import attention, one_call
from llmkit.models.one_call import attention_in_one_call

STARTS = [0, 5, 6, 23, 40]


def tensors(heads: int, key_heads: int, size: int = 16, device: str = "cpu") -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(1, heads, 40, size), (1, key_heads, 40, size), (1, key_heads, 40, size)]
    return [torch.randn(shape).to(device, torch.bfloat16).requires_grad_() for shape in shapes]


def like_flash(query, key, value, starts, key_starts, longest, most, dropout, causal, mask, scale):
    """What PyTorch's kernel computes, on any device; it has none for a CPU."""
    assert starts.dtype == torch.int32
    assert (longest, most) == (int(starts.diff().max()),) * 2
    out = one_call._row_by_row(
        *(each.transpose(0, 1)[None] for each in (query, key, value)), tuple(starts.tolist()), scale
    )
    return out[0], None, None, None, None


def leaking(query, key, value, starts, *rest, **named):
    """Rows see each other."""
    return like_flash(
        query, key, value, starts[[0, -1]], starts, *[len(query)] * 2, *rest[3:], **named
    )


def without_backward(*arguments: Any, **named: Any):
    return like_flash(
        *(a.detach() if isinstance(a, torch.Tensor) else a for a in arguments), **named
    )


def absent(*arguments: Any, **named: Any):
    raise NotImplementedError(
        "Could not run 'aten::_flash_attention_forward' from the 'CPU' backend"
    )


def of_another_torch(query, key, value):
    raise AssertionError("never called: its arguments differ")


@pytest.fixture(autouse=True)
def untried():
    """Nothing of another kernel's trial is remembered."""
    one_call._agrees.cache_clear()
    yield
    one_call._agrees.cache_clear()


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
def test_one_call_gives_outputs_and_gradients_of_calls_row_by_row(heads, monkeypatch):
    monkeypatch.setattr(one_call, "_flash", like_flash)
    inputs = tensors(*heads)
    out = attention_in_one_call(*inputs, STARTS, 0.3)
    expected = one_call._row_by_row(*inputs, tuple(STARTS), 0.3)
    assert out.shape == expected.shape == (1, 40, heads[0], 16)
    torch.testing.assert_close(out, expected)
    weights = torch.randn(out.shape, dtype=torch.bfloat16)
    ours, theirs = (torch.autograd.grad((each * weights).sum(), inputs) for each in (out, expected))
    for found, wanted in zip(ours, theirs):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("kernel", [leaking, without_backward, absent, of_another_torch])
def test_a_kernel_that_is_wrong_or_missing_is_not_used(kernel, monkeypatch):
    monkeypatch.setattr(one_call, "_flash", kernel)
    assert attention_in_one_call(*tensors(4, 2), STARTS, None) is None


def test_a_kernel_is_tried_once_and_draws_no_numbers_of_the_trainings(monkeypatch):
    calls = []

    def counted(*arguments, **named):
        calls.append(1)
        return like_flash(*arguments, **named)

    monkeypatch.setattr(one_call, "_flash", counted)
    inputs = tensors(4, 2)
    before = torch.get_rng_state()
    for _ in range(3):
        attention_in_one_call(*inputs, STARTS, None)
    assert len(calls) == 4  # the trial, and three
    assert torch.equal(torch.get_rng_state(), before)


def test_a_trial_that_found_no_memory_is_made_again(monkeypatch):
    def full(*arguments, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(one_call, "_flash", full)
    assert attention_in_one_call(*tensors(4, 2), STARTS, None) is None
    monkeypatch.setattr(one_call, "_flash", like_flash)
    assert attention_in_one_call(*tensors(4, 2), STARTS, None) is not None


def test_the_trial_inside_a_checkpointed_layer_leaves_it_whole(monkeypatch):
    monkeypatch.setattr(one_call, "_flash", like_flash)
    inputs = tensors(4, 2)

    def layer(*given):
        return attention_in_one_call(*given, STARTS, None) * 2

    out = torch.utils.checkpoint.checkpoint(layer, *inputs, use_reentrant=False)
    ours = torch.autograd.grad(out.sum(), inputs)
    theirs = torch.autograd.grad(layer(*inputs).sum(), inputs)
    for found, wanted in zip(ours, theirs):
        torch.testing.assert_close(found, wanted)


def test_what_the_kernel_does_not_take_is_left_to_others(monkeypatch):
    monkeypatch.setattr(one_call, "_flash", like_flash)
    with_floats = [each.detach().float() for each in tensors(4, 2)]
    assert attention_in_one_call(*with_floats, STARTS, None) is None
    assert attention_in_one_call(*tensors(4, 2, size=12), STARTS, None) is None
    assert attention_in_one_call(*tensors(4, 2, size=264), STARTS, None) is None
    with torch.autocast("cpu", torch.bfloat16):
        out = attention_in_one_call(*with_floats, STARTS, None)
    assert out.dtype == torch.bfloat16


def test_calls_row_by_row_give_no_gradients_as_long_as_the_pack():
    """With dropout, or a window, rows are split: one operation for all of them, not one a row."""
    inputs = [each.detach().float().requires_grad_() for each in tensors(4, 2)]
    out, _ = attention.rows_attention(
        torch.nn.Module(), *inputs, None, row_starts=STARTS, sliding_window=3
    )
    seen, todo = set(), [out.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    names = [type(node).__name__ for node in seen]
    assert names.count("SplitWithSizesBackward0") == 3
    assert not [name for name in names if name.startswith("Slice")]


@pytest.mark.parametrize("window", [None, 3])
def test_keys_repeated_for_a_kernel_give_what_shared_keys_give(window, monkeypatch):
    inputs = [each.detach().float() for each in tensors(6, 2)]

    def attend():
        return attention.rows_attention(
            torch.nn.Module(),
            *inputs,
            None,
            row_starts=STARTS,
            sliding_window=window,
            dropout=1e-12,  # or the CPU's own form would be taken
        )[0]

    expected = attend()
    monkeypatch.setattr(attention, "_shares_keys", lambda query, *, masked: False)
    torch.testing.assert_close(attend(), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("heads", "size"), [((4, 4), 64), ((32, 8), 128)])
def test_on_a_gpu_the_kernel_is_used_and_right(heads, size, monkeypatch):
    inputs = tensors(*heads, size=size, device="cuda")
    inputs = [each.detach().requires_grad_() for each in inputs]
    out = attention_in_one_call(*inputs, STARTS, None)
    assert out is not None
    expected = one_call._row_by_row(*inputs, tuple(STARTS), None)
    torch.testing.assert_close(out, expected, rtol=0.02, atol=0.02)
