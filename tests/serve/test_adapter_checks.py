"""What is looked at before an adapter reaches the engine."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_folders import LAYER, make_adapter, make_base, make_run, matrices

from serve.adapters.base import ServedBase, folder_hash
from serve.adapters.checks import check_adapter
from serve.adapters.places import find_source
from serve.adapters.provenance import Provenance, check_provenance, read_provenance
from serve.adapters.refusal import AdapterRefused


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


def refusal(check: Callable[..., Any], *given: Any) -> AdapterRefused:
    with pytest.raises(AdapterRefused) as caught:
        check(*given)
    return caught.value


def provenance(root: Path, path: str) -> Provenance | None:
    source = find_source(root, path)
    return read_provenance(source, folder_hash(source.adapter))


def test_an_adapter_that_fits_passes_and_tells_its_rank(tmp_path: Path, base: Path) -> None:
    adapter = make_adapter(tmp_path / "a")
    assert check_adapter(adapter, ServedBase(base), 8) == 2


def test_the_tied_head_is_as_large_as_the_embeddings(tmp_path: Path, base: Path) -> None:
    fits = make_adapter(tmp_path / "a", matrices("lm_head", shape=(9, 4)))
    assert check_adapter(fits, ServedBase(base), 8) == 2
    other = make_adapter(tmp_path / "b", matrices("lm_head", shape=(8, 4)))
    assert "another base" in str(refusal(check_adapter, other, ServedBase(base), 8))


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({}, "no tensors"),
        (matrices("model.layers.7.self_attn.q_proj"), "no layer"),
        (matrices(shape=(6, 5)), "another base"),
        (matrices(rank=4), "rank 4"),
        (matrices(fill=float("nan")), "not finite"),
        (matrices(fill=float("inf")), "not finite"),
        (dict(list(matrices().items())[:1]), "only one"),
        (matrices() | {"base_model.model.lm_head.weight": torch.zeros(9, 4)}, "not a LoRA matrix"),
        ({name: value.int() for name, value in matrices().items()}, "I32"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, base: Path, tensors: dict[str, torch.Tensor], told: str
) -> None:
    adapter = make_adapter(tmp_path / "a", tensors)
    assert told in str(refusal(check_adapter, adapter, ServedBase(base), 8))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "IA3"}, "not of a LoRA"),
        ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": {"embed_tokens": [1]}}, "rows of the embeddings"),
        ({"use_dora": True}, "DoRA"),
        ({"target_modules": None}, "target_modules"),
        ({"bias": "all"}, "biases"),
        ({"r": "2"}, "whole number"),
        ({"r": True}, "whole number"),
        ({"r": 0}, "whole number"),
        ({"r": 16}, "max_adapter_rank=16"),
        ({"rank_pattern": {"q_proj": 64}}, "max_adapter_rank=64"),
        ({"rank_pattern": {"(a+)+$": 2}}, "plainly"),
        ({"alpha_pattern": {"(a+)+$": 2}}, "plainly"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": float("inf")}, "lora_alpha"),
        ({"lora_alpha": 10**400}, "lora_alpha"),
    ],
)
def test_settings_that_cannot_be_served_are_refused(
    tmp_path: Path, base: Path, config: dict[str, Any], told: str
) -> None:
    adapter = make_adapter(tmp_path / "a", **config)
    assert told in str(refusal(check_adapter, adapter, ServedBase(base), 8))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b" " * 2_000_000])
def test_unreadable_settings_are_refused(tmp_path: Path, base: Path, content: bytes) -> None:
    adapter = make_adapter(tmp_path / "a")
    (adapter / "adapter_config.json").write_bytes(content)
    assert refusal(check_adapter, adapter, ServedBase(base), 8).status == 400


def test_weights_cut_short_or_of_another_kind_are_refused(tmp_path: Path, base: Path) -> None:
    adapter = make_adapter(tmp_path / "a")
    file = adapter / "adapter_model.safetensors"
    whole = file.read_bytes()
    for content in (b"", whole[:-4], whole[:40], b"\xff" * 64, b"PK\3\4" + whole):
        file.write_bytes(content)
        assert "cannot be read" in str(refusal(check_adapter, adapter, ServedBase(base), 8))


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "..", "../outside", "a/../../outside", "/etc", "~/x/../.."),
        *(".served/x", "a/.hidden", "a\0b", "a\\b", "x" * 2000, "x" * 300),
    ],
)
def test_a_path_that_is_not_below_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    make_adapter(tmp_path / "outside")
    (tmp_path / "root").mkdir()
    refused = refusal(find_source, tmp_path / "root", path)
    assert refused.status == 400
    assert str(tmp_path) not in str(refused)


def test_links_out_of_the_folder_are_refused_and_those_inside_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    outside, inside = make_adapter(tmp_path / "outside"), make_adapter(root / "inside")
    (root / "link").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    (root / "also").symlink_to(inside)
    (root / "half").mkdir()
    (root / "half" / "adapter_config.json").symlink_to(outside / "adapter_config.json")
    for path in ("link", "half", "loop"):
        assert refusal(find_source, root, path).status == 400
    assert find_source(root, "also").adapter == inside


def test_a_pipe_in_place_of_a_file_is_refused_and_not_read(tmp_path: Path) -> None:
    make_adapter(tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").unlink()
    os.mkfifo(tmp_path / "a" / "adapter_config.json")
    assert "no adapter_config.json" in str(refusal(find_source, tmp_path, "a"))


def test_a_runs_adapter_of_the_served_base_passes(tmp_path: Path, base: Path) -> None:
    make_run(tmp_path / "runs" / "one", base)
    for path in ("one", "one/adapter"):
        found = provenance(tmp_path / "runs", path)
        check_provenance(path, found, ServedBase(base))


def test_a_runs_adapter_of_another_base_or_template_is_refused(tmp_path: Path, base: Path) -> None:
    make_run(tmp_path / "other-base", base, model="0" * 64)
    make_run(tmp_path / "other-template", base, template="other")
    for path, told in [("other-base", "another base"), ("other-template", "another chat template")]:
        found = provenance(tmp_path, path)
        assert told in str(refusal(check_provenance, path, found, ServedBase(base)))


def test_a_template_given_to_the_server_is_what_counts(tmp_path: Path, base: Path) -> None:
    make_run(tmp_path / "run", base, template="special")
    (tmp_path / "special.jinja").write_text("special")
    found = provenance(tmp_path, "run")
    check_provenance("run", found, ServedBase(base, tmp_path / "special.jinja"))


def test_plain_text_needs_no_template(tmp_path: Path, base: Path) -> None:
    make_run(tmp_path / "run", base, template="")
    check_provenance("run", provenance(tmp_path, "run"), ServedBase(base))


def test_an_adapter_changed_since_its_run_is_refused(tmp_path: Path, base: Path) -> None:
    run = make_run(tmp_path / "run", base)
    make_adapter(run / "adapter", matrices(fill=2.0))
    told = str(refusal(provenance, tmp_path, "run"))
    assert "not the one that its run left" in told


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"stages": {"train": 1}}'])
def test_a_damaged_record_is_refused(tmp_path: Path, base: Path, manifest: str) -> None:
    run = make_run(tmp_path / "run", base)
    (run / "manifest.json").write_text(manifest)
    assert refusal(provenance, tmp_path, "run").status == 400


def test_an_adapter_without_a_run_is_refused_as_unverified(tmp_path: Path, base: Path) -> None:
    make_adapter(tmp_path / "plain")
    found = provenance(tmp_path, "plain")
    refused = refusal(check_provenance, "plain", found, ServedBase(base))
    assert refused.code == "adapter_unverified"


def test_the_bases_hash_is_the_one_that_runs_record(tmp_path: Path, base: Path) -> None:
    from llmkit.files import content_hash
    from llmkit.models.catalog import ResolvedModel

    assert ServedBase(base).sha256 == ResolvedModel("demo", base).content_hash()
    adapter = make_adapter(tmp_path / "a")
    (adapter / "more").mkdir()
    (adapter / "more" / "file").write_text("x")

    assert folder_hash(adapter) == content_hash(adapter)


def test_the_bases_hash_is_remembered_until_the_base_changes(tmp_path: Path, base: Path) -> None:
    memory = tmp_path / "memory.json"
    first = ServedBase(base, memory=memory).sha256
    memory.write_text(json.dumps(json.loads(memory.read_text()) | {"sha256": "remembered"}))
    assert ServedBase(base, memory=memory).sha256 == "remembered"
    (base / "config.json").write_text('{"changed": true}')
    assert ServedBase(base, memory=memory).sha256 not in ("remembered", first)


def test_a_quantised_layer_is_known_by_name_only(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    base = tmp_path / "base"
    base.mkdir()
    packed = torch.zeros(12, 1, dtype=torch.uint8)
    save_file(
        {f"{LAYER}.weight": packed, f"{LAYER}.weight.absmax": torch.zeros(1)},
        base / "m.safetensors",
    )
    assert check_adapter(make_adapter(tmp_path / "a"), ServedBase(base), 8) == 2
