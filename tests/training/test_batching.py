"""Packed = unpacked: the batches and the loss, in float32 on the CPU."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmkit.models.adapters import attach, base_of
from llmkit.training.batching import Sequence, Sequences, collate
from llmkit.training.isolation import check_rows_are_apart, kl_divergence
from llmkit.training.loss import supervised_logits, supervised_loss
from llmkit.training.settings import LoraAdapter

# Measured: float32 sums in another order differ by about 1e-6 relative.
TOLERANCE = 1e-5


def _split(sequence: Sequence) -> list[Sequence]:
    return [sequence.row(index) for index in range(len(sequence.row_lengths))]


def _sequence(ids: list[int], supervised: list[bool], lengths: list[int]) -> Sequence:
    kinds = (np.int32, np.bool_, np.int32)
    return Sequence(*(np.array(v, k) for v, k in zip((ids, supervised, lengths), kinds)))


def _plain_batch(sequences: list[Sequence]) -> dict[str, list[int]]:
    """What a batch holds, token by token."""
    batch: dict[str, list[int]] = {
        "input_ids": [],
        "position_ids": [],
        "row_starts": [0],
        "predict_at": [],
        "shift_labels": [],
    }
    for sequence in sequences:
        tokens = iter(zip(sequence.input_ids.tolist(), sequence.supervised.tolist()))
        for length in sequence.row_lengths.tolist():
            for position in range(length):
                token, supervised = next(tokens)
                if supervised and position:
                    batch["predict_at"].append(len(batch["input_ids"]) - 1)
                    batch["shift_labels"].append(token)
                batch["input_ids"].append(token)
                batch["position_ids"].append(position)
            batch["row_starts"].append(len(batch["input_ids"]))
    return batch


def _gradients(model: Any, batches: list[dict[str, Any]]) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    total = sum(supervised_loss(base_of(model), batch) for batch in batches)
    total.backward()
    return float(total.detach()), [p.grad.clone() for p in model.parameters() if p.requires_grad]


def test_packed_rows_have_the_loss_and_gradients_of_the_same_rows_alone(tiny_model, prepared):
    packs = list(Sequences(prepared().sequences("train")))
    assert any(len(pack.row_lengths) > 2 for pack in packs)
    model = attach(tiny_model, LoraAdapter(rank=4), seed=0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    packed_loss, packed = _gradients(model, [collate([pack]) for pack in packs])
    rows = [row for pack in packs for row in _split(pack)]
    alone_loss, alone = _gradients(model, [collate([row]) for row in rows])
    assert packed_loss == pytest.approx(alone_loss, rel=TOLERANCE)
    for ours, expected in zip(packed, alone, strict=True):
        assert (ours - expected).norm() <= TOLERANCE * expected.norm()
        assert expected.norm() > 0


def test_a_row_in_a_pack_gets_the_logits_it_gets_alone(tiny_model, prepared):
    pack = next(p for p in Sequences(prepared().sequences("train")) if len(p.row_lengths) > 2)
    together = supervised_logits(tiny_model, collate([pack]))
    alone = torch.cat([supervised_logits(tiny_model, collate([row])) for row in _split(pack)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_the_loss_is_that_of_transformers_own_forward_with_labels(tiny_model, prepared):
    pack = next(iter(Sequences(prepared().sequences("train"))))
    ours, theirs, targets = 0.0, 0.0, 0
    for row in _split(pack):
        batch = collate([row])
        ours += float(supervised_loss(tiny_model, batch))
        labels = torch.tensor([[i if s else -100 for i, s in zip(row.input_ids, row.supervised)]])
        count = len(batch["shift_labels"])
        theirs += float(tiny_model(input_ids=batch["input_ids"], labels=labels).loss) * count
        targets += count
    assert targets == sum(pack.supervised)
    assert ours == pytest.approx(theirs, rel=TOLERANCE)


def test_two_packs_in_a_batch_are_as_two_batches(tiny_model, prepared):
    first, second = list(Sequences(prepared(60).sequences("train")))[:2]
    together = supervised_loss(tiny_model, collate([first, second]))
    apart = sum(supervised_loss(tiny_model, collate([pack])) for pack in (first, second))
    assert float(together) == pytest.approx(float(apart), rel=TOLERANCE)


def test_only_supervised_tokens_are_targets_and_positions_restart(prepared):
    for pack in Sequences(prepared().sequences("train")):
        batch = collate([pack])
        wanted = [i for i, s in zip(pack.input_ids, pack.supervised, strict=True) if s]
        assert batch["shift_labels"].tolist() == wanted
        followed = [pack.input_ids[at + 1] for at in batch["predict_at"].tolist()]
        assert followed == wanted
        starts = batch["row_starts"]
        assert batch["position_ids"][0, starts[:-1]].tolist() == [0] * len(pack.row_lengths)


ROW = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1, max_size=9)
PACK = st.lists(ROW, min_size=1, max_size=4)


@given(st.lists(PACK, min_size=1, max_size=3))
def test_a_batch_is_what_it_is_token_by_token(packs: list[list[list[tuple[int, bool]]]]):
    sequences = [
        _sequence(
            [token for row in rows for token, _ in row],
            [flag for row in rows for _, flag in row],
            [len(row) for row in rows],
        )
        for rows in packs
    ]
    batch, expected = collate(sequences), _plain_batch(sequences)
    assert batch.pop("row_starts") == expected.pop("row_starts")
    for name, values in expected.items():
        assert batch[name].dtype == torch.int64
        assert batch[name].flatten().tolist() == values
    tokens = len(expected["input_ids"])
    assert batch["input_ids"].shape == batch["position_ids"].shape == (1, tokens)


def test_sequences_are_views_of_the_mapped_file(prepared):
    table = prepared(60).sequences("train")
    before = pa.total_allocated_bytes()
    sequences = list(Sequences(table))
    assert pa.total_allocated_bytes() == before
    for index, sequence in enumerate(sequences):
        for name in ("input_ids", "supervised", "row_lengths"):
            values = getattr(sequence, name)
            assert not values.flags.owndata
            assert not values.flags.writeable
            assert values.tolist() == table[name][index].as_py()


def test_a_batch_can_be_written_to_though_the_file_cannot(prepared):
    batch = collate([Sequences(prepared().sequences("train"))[0]])
    for values in batch.values():
        if isinstance(values, torch.Tensor):
            values += 1


def test_the_first_token_of_a_row_is_never_predicted_from_the_row_before_it():
    batch = collate([_sequence([5, 6, 7, 8], [True] * 4, [2, 2])])
    assert batch["shift_labels"].tolist() == [6, 8]
    assert batch["predict_at"].tolist() == [0, 2]


def test_loss_in_chunks_is_loss_at_once(tiny_model, prepared, monkeypatch):
    pack = next(iter(Sequences(prepared().sequences("train"))))
    model = attach(tiny_model, LoraAdapter(rank=4), seed=0)
    whole_loss, whole = _gradients(model, [collate([pack])])
    monkeypatch.setattr("llmkit.training.loss.CHUNK", 7)
    chunked_loss, chunked = _gradients(model, [collate([pack])])
    assert chunked_loss == pytest.approx(whole_loss, rel=TOLERANCE)
    for ours, expected in zip(chunked, whole, strict=True):
        assert (ours - expected).norm() <= TOLERANCE * expected.norm()


def test_a_trainable_head_gets_its_gradient(tiny_model, prepared):
    batch = collate([next(iter(Sequences(prepared().sequences("train"))))])
    head = tiny_model.get_output_embeddings().weight.requires_grad_()
    supervised_loss(tiny_model, batch).backward()
    ours = head.grad.clone()
    head.grad = None
    logits = tiny_model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        row_starts=batch["row_starts"],
    ).logits[0, batch["predict_at"]]
    torch.nn.functional.cross_entropy(logits, batch["shift_labels"], reduction="sum").backward()
    torch.testing.assert_close(ours, head.grad, rtol=1e-4, atol=1e-5)


def test_the_isolation_check_passes_on_a_model_that_keeps_rows_apart(tiny_model, prepared):
    sequences = Sequences(prepared().sequences("train"))
    found = check_rows_are_apart(tiny_model, sequences, torch.float32)
    assert found["positions"] > 0
    assert abs(found["kl_packed_vs_alone"]) < 1e-6


@pytest.mark.parametrize("int8", [False, True], ids=["whole", "int8"])
def test_the_isolation_check_refuses_a_model_whose_attention_ignores_rows(
    tiny_model, prepared, monkeypatch, int8
):
    from llmkit.errors import CheckFailed
    from llmkit.models import attention

    def leaking(module, query, key, value, mask, row_starts=None, **rest):
        return attention.rows_attention(module, query, key, value, None, **rest)

    monkeypatch.setitem(
        attention.AttentionInterface._global_mapping, attention.ROWS_ATTENTION, leaking
    )
    # int8 weights round more where rows stand together; a visible neighbour is far above that.
    monkeypatch.setattr(tiny_model, "is_loaded_in_8bit", int8, raising=False)
    with pytest.raises(CheckFailed, match=r"see each other.*data\.packing=false"):
        check_rows_are_apart(tiny_model, Sequences(prepared().sequences("train")), torch.float32)


@pytest.mark.parametrize("seen", [slice(None, 8), slice(-8, None)], ids=["fading", "late"])
def test_the_isolation_check_sees_a_neighbour_at_either_end_of_a_long_row(
    tiny_model, monkeypatch, seen
):
    """State that an architecture carries over fades; what passes a window comes late."""
    from llmkit.errors import CheckFailed
    from llmkit.models import attention

    def leaking(module, query, key, value, mask, row_starts=None, **rest):
        apart = attention.rows_attention(
            module, query, key, value, None, row_starts=row_starts, **rest
        )
        if row_starts is not None and len(row_starts) > 2:
            seeing = attention.rows_attention(module, query, key, value, None, **rest)[0]
            last = apart[0][:, row_starts[-2] : row_starts[-1]]
            last[:, seen] = seeing[:, row_starts[-2] : row_starts[-1]][:, seen]
        return apart

    monkeypatch.setitem(
        attention.AttentionInterface._global_mapping, attention.ROWS_ATTENTION, leaking
    )
    ids = np.random.default_rng(0).integers(0, 200, 400).tolist()
    rows = [Sequence.of_row(ids[:200], [True] * 200), Sequence.of_row(ids[200:], [True] * 200)]
    with torch.no_grad(), pytest.raises(CheckFailed, match="see each other"):
        check_rows_are_apart(tiny_model, rows, torch.float32)


def test_a_sliding_window_is_kept_inside_each_row():
    from llmkit.models.attention import rows_attention

    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 10, 8) for _ in range(3))
    module = torch.nn.Module()
    windowed, _ = rows_attention(
        module, query, key, value, None, row_starts=[0, 6, 10], sliding_window=2
    )
    for position, seen in [(3, [2, 3]), (6, [6]), (9, [8, 9])]:
        scores = (query[0, :, position : position + 1] @ key[0, :, seen].transpose(1, 2)) / 8**0.5
        expected = (scores.softmax(-1) @ value[0, :, seen])[:, 0]
        torch.testing.assert_close(windowed[0, position], expected)


def test_kl_divergence_is_zero_for_equal_logits_and_grows():
    logits = torch.randn(5, 11)
    assert kl_divergence(logits, logits + 3) == pytest.approx(0, abs=1e-6)
    assert kl_divergence(logits, logits.flip(-1)) > 0.1
