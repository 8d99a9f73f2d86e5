"""What a training takes, counted on shapes: the counts are those of the real model."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from llmkit import cli
from llmkit.errors import UsageError
from llmkit.models import trained
from llmkit.models.loading import load_base
from llmkit.planning import plan as planning
from llmkit.planning import tracing
from llmkit.planning.changes import smaller_recipes
from llmkit.planning.estimate import count_shapes, on_cpu, on_gpu
from llmkit.planning.ledger import HOLES, LARGE, Ledger
from llmkit.planning.moments import moments_of
from llmkit.planning.probe import probe
from llmkit.planning.workload import assumed_workload, workload_of
from llmkit.recipe import Recipe, load_recipe
from llmkit.training.batching import collate
from llmkit.training.kernels.choice import apply_kernels
from llmkit.training.loss import supervised_loss
from llmkit.training.process_settings import Processes
from llmkit.training.settings import TrainingConfig

CPU = torch.device("cpu")
ADAPTERS = {
    "lora": {"rank": 4},
    "dora": {"rank": 4, "dora": True},
    "saved": {"rank": 4, "modules_to_save": ["lm_head"]},
    "freeze": {"kind": "freeze", "layers": 1},
    "full": {"kind": "full"},
}


def count(folder, quantization="none", dtype=torch.float32, tokens=64, **training):
    config = TrainingConfig.model_validate(training)
    workload = assumed_workload(tokens, True, config)
    return count_shapes(folder, quantization, config, workload, dtype)


def loaded(folder, adapter, quantization, initial, dtype=torch.float32):
    config = TrainingConfig.model_validate({"adapter": adapter}).adapter
    held = trained.base_dtype(config, quantization, dtype, folder)
    base = load_base(folder, quantization=quantization, device=CPU, dtype=held)
    return trained.make_trainable(base, config, 0, [], dtype=dtype, initial=initial)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_what_trains_is_counted_as_it_is_chosen(tiny, tmp_path, kind):
    shapes = count(tiny, adapter=ADAPTERS[kind])
    model = loaded(tiny, ADAPTERS[kind], "none", tmp_path)
    assert shapes.trainable == trained.figures(model)["trainable_parameters"]
    held = sum(p.numel() * p.itemsize for p in model.parameters())
    assert shapes.weights + shapes.added == held


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_weights_are_counted_with_their_scales(tiny, tmp_path, quantization):
    shapes = count(tiny, quantization, adapter={"rank": 4})
    model = loaded(tiny, {"rank": 4}, quantization, tmp_path)
    held = 0
    for parameter in model.parameters():
        held += parameter.numel() * parameter.itemsize if not parameter.requires_grad else 0
        state, scales = getattr(parameter, "quant_state", None), getattr(parameter, "SCB", None)
        if state is not None:
            parts = (state.absmax, state.code, state.state2.absmax, state.state2.code)
            held += sum(each.numel() * each.itemsize for each in parts)
        held += scales.numel() * scales.itemsize if scales is not None else 0
    assert shapes.weights == held
    assert shapes.quantized_parameters == sum(
        layer.in_features * layer.out_features
        for layer in model.modules()
        if isinstance(layer, torch.nn.Linear) and not layer.weight.is_floating_point()
    )


class _Kept:
    """Adds up what autograd keeps for the backward pass, each memory once."""

    def __init__(self, model) -> None:
        self.sizes = {}
        self.own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def __call__(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.own and tensor.is_floating_point():
            self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_activations_are_what_autograd_keeps(tiny, tmp_path, prepared, kind, kernels):
    settings = {"adapter": ADAPTERS[kind], "batch": {"rows": 2}, "kernels": kernels}
    config = TrainingConfig.model_validate(settings)
    workload = workload_of(prepared(), config)
    shapes = count_shapes(tiny, "none", config, workload, torch.float32)
    model = loaded(tiny, ADAPTERS[kind], "none", tmp_path)
    model.train()
    if kernels == "fused":
        apply_kernels(model, torch.float32)
    kept = _Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        loss = supervised_loss(trained_base(model), collate(workload.batch))
    assert loss.requires_grad
    assert shapes.traced.kept == pytest.approx(sum(kept.sizes.values()), rel=0.1)


def trained_base(model):
    from llmkit.models.adapters import base_of

    return base_of(model)


def test_gradient_checkpointing_keeps_less_and_more_tokens_keep_more(tiny):
    plain = count(tiny, tokens=128)
    checkpointed = count(tiny, tokens=128, gradient_checkpointing=True)
    longer = count(tiny, tokens=256)
    assert checkpointed.traced.kept < plain.traced.kept / 2
    assert longer.traced.kept == pytest.approx(2 * plain.traced.kept, rel=0.05)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_large_batch_is_counted_from_smaller_ones(tiny, monkeypatch, checkpointing, accumulate):
    batch = {"rows": 40, "accumulate": accumulate}
    settings = {"batch": batch, "gradient_checkpointing": checkpointing, "tokens": 96}
    counted = count(tiny, **settings).traced
    monkeypatch.setattr(tracing, "MOST_TRACED", 40)
    run = count(tiny, **settings).traced
    assert counted.checks == run.checks
    assert counted.kept == pytest.approx(run.kept, rel=0.01)
    for found, whole in ((counted.step, run.step), (counted.evaluation, run.evaluation)):
        assert found == pytest.approx(whole, rel=0.02)


def test_a_batch_of_thousands_is_counted_without_running_them(tiny, monkeypatch):
    sizes = []
    step = tracing._step

    def noted(model, config, objective, sequences, dtype, ledger):
        sizes.append(len(sequences))
        return step(model, config, objective, sequences, dtype, ledger)

    monkeypatch.setattr(tracing, "_step", noted)
    count(tiny, batch={"rows": 2000})
    assert max(sizes) == tracing.MOST_TRACED


def test_full_mixed_precision_adam_is_sixteen_bytes_a_parameter(tiny):
    shapes = count(tiny, dtype=torch.bfloat16, adapter={"kind": "full"})
    lines = {line.what: line.bytes for line in on_gpu(shapes, TrainingConfig()).lines}
    each = lines["base weights"] + lines["gradients"] + lines["optimiser"]
    assert each == 16 * shapes.parameters


def test_the_lines_add_up_to_the_longest_step(tiny):
    for quantization in ("none", "nf4"):
        shapes = count(tiny, quantization, torch.bfloat16)
        for found in (on_cpu(shapes, 10**8, TrainingConfig()), on_gpu(shapes, TrainingConfig())):
            assert sum(line.bytes for line in found.lines) == found.phases["step"]


def test_states_are_those_that_optimisers_keep():
    from transformers import Adafactor

    parameter = torch.nn.Parameter(torch.ones(48, 96))
    vector = torch.nn.Parameter(torch.ones(96))
    kinds = {"adamw": torch.optim.AdamW, "adafactor": Adafactor, "sgd": torch.optim.SGD}
    for name, kind in kinds.items():
        settings = {"scale_parameter": False, "relative_step": False} if name == "adafactor" else {}
        optimizer = kind([parameter, vector], lr=1e-3, **settings)
        parameter.grad, vector.grad = torch.ones_like(parameter), torch.ones_like(vector)
        optimizer.step()
        for each in (parameter, vector):
            states = [v for v in optimizer.state[each].values() if isinstance(v, torch.Tensor)]
            held = sum(v.numel() * v.itemsize for v in states if v.numel() > 1)
            assert held == sum(moments_of(name, tuple(each.shape))), name
    assert sum(moments_of("adamw_8bit", (48, 96))) == 2 * 48 * 96 + 2 * 4 * 18
    assert moments_of("adamw_8bit", (96,)) == [384, 384]


def test_the_ledger_keeps_what_the_heap_grew_to_and_gives_large_blocks_back():
    with FakeTensorMode(), Ledger() as ledger:
        small = torch.empty(LARGE // 2, dtype=torch.uint8)
        view = small[:10]
        assert ledger.live == LARGE // 2
        del small
        assert ledger.live == LARGE // 2  # a view keeps it
        del view
        assert ledger.live == 0
        large = torch.empty(LARGE, dtype=torch.uint8)
        assert ledger.live_peak == LARGE
        assert ledger.resident_peak == round(HOLES * (LARGE // 2)) + LARGE
        del large
        ledger.restart()
        assert ledger.resident_peak == round(HOLES * (LARGE // 2))


def test_a_workload_is_the_longest_packs(prepared):
    data = prepared(40, max_tokens=128)
    workload = workload_of(data, TrainingConfig.model_validate({"batch": {"rows": 2}}))
    lengths = sorted(sum(row) for row in data.sequences("train")["row_lengths"].to_pylist())
    assert [len(each.input_ids) for each in workload.batch] == lengths[:-3:-1]
    assert workload.tokens == sum(lengths)


@pytest.fixture
def recipe_file(tiny, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"train {n}?"},
                {"role": "assistant", "content": "run."},
            ]
        }
        for n in range(30)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: small\nmodel: {{base: {tiny}, device: cpu}}\n"
        "data: {sources: [{path: rows.jsonl}], max_tokens: 128}\n"
        "training: {adapter: {rank: 4}, batch: {rows: 2}}\n"
        "evaluation: {generate: 0}\n"
    )
    return path


@pytest.fixture
def llmkit(monkeypatch, capsys):
    def call(*words: str):
        monkeypatch.setattr(sys, "argv", ["llmkit", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


def test_the_command_shows_the_arithmetic_and_writes_nothing(llmkit, recipe_file):
    code, out, _ = llmkit("plan", str(recipe_file))
    assert code == 0
    assert "the data is not prepared yet" in out
    assert "steps: known once the data is prepared" in out
    assert "longest step: 256 tokens" in out
    assert "GPU of  8 GiB: fits" in out
    assert not Path("runs").exists()


def test_the_command_uses_prepared_data_unless_the_recipe_asks_for_other(llmkit, recipe_file):
    assert llmkit("prep", str(recipe_file), "--quiet")[0] == 0
    code, out, _ = llmkit("plan", str(recipe_file), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["longest_step_from"].startswith("the longest of")
    assert found["steps"] > 0
    assert found["tokens"] > 0
    assert found["seconds"] is None
    for other in ("data.max_tokens=64", "model.chat_template=zephyr", "training.method=dpo"):
        out = llmkit("plan", str(recipe_file), other, "--json")[1]
        assert "not prepared yet" in json.loads(out)["longest_step_from"], other


def test_what_training_would_refuse_the_plan_refuses(llmkit, recipe_file):
    code, _, err = llmkit("plan", str(recipe_file), "training.adapter.rank=65")
    assert code == 2
    assert "above 32, the smallest dimension of model.layers.0.self_attn.k_proj" in err
    code, _, err = llmkit("plan", str(recipe_file), "training.adapter.targets=[q_porj]")
    assert code == 2
    assert "Nearest: q_proj" in err
    words = ["model.quantization=nf4", "training.adapter={kind: full}"]
    code, _, err = llmkit("plan", str(recipe_file), *words)
    assert code == 2
    assert "quantised ones (model.quantization=nf4) cannot be trained" in err


def test_a_folder_without_a_causal_language_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UsageError, match="cannot be planned as a causal language model"):
        count(tmp_path)


def test_what_does_not_fit_is_said_with_the_change_that_would(tiny, recipe_file, monkeypatch):
    recipe = load_recipe(recipe_file, ["data.max_tokens=512", "training.batch.rows=8"])
    whole = planning.make_plan(recipe, tiny, None)
    assert whole.fits
    assert whole.change is None
    changes = list(smaller_recipes(recipe))
    assert changes[0][0] == "training.batch.rows=1 training.batch.accumulate=8"
    smaller = planning.make_plan(changes[0][1], tiny, None)
    between = (whole.here.peak + smaller.here.peak) // 2
    monkeypatch.setattr(planning, "memory_of", lambda *_: between)
    tight = planning.make_plan(recipe, tiny, None)
    assert not tight.fits
    assert tight.change == changes[0][0]
    monkeypatch.setattr(planning, "memory_of", lambda *_: 1)
    assert planning.make_plan(recipe, tiny, None).change is None


def test_every_smaller_recipe_is_one_that_a_recipe_may_say(recipe_file):
    for words in (["model.quantization=int8"], ["training.adapter={kind: full}"]):
        recipe = load_recipe(recipe_file, [*words, "data.max_tokens=512"])
        for _, smaller in smaller_recipes(recipe):
            assert Recipe.model_validate(smaller.model_dump()) == smaller


def test_training_warns_when_memory_is_short(llmkit, recipe_file, monkeypatch):
    monkeypatch.setattr(planning, "memory_of", lambda *_: 2**20)
    code, out, _ = llmkit("train", str(recipe_file))
    assert code == 0
    assert "warning: this training needs about" in out


def test_a_probe_measures_the_longest_step(tiny, recipe_file):
    recipe = load_recipe(recipe_file)
    workload = assumed_workload(128, True, recipe.training)
    found = probe(recipe, tiny, workload)
    assert found.peak > 100 * 2**20
    assert found.tokens_per_second > 0


def test_assumed_rows_are_of_many_tokens_that_every_vocabulary_has():
    (row,) = assumed_workload(128, True, TrainingConfig()).batch
    assert len(set(row.input_ids.tolist())) > 100  # of one alone, a real model in bfloat16 is noise
    assert row.input_ids.max() < 256


def test_a_plan_counts_faster_forms_until_a_training_has_chosen(llmkit, recipe_file):
    def planned(*words):
        return json.loads(llmkit("plan", str(recipe_file), "--json", *words)[1])

    def kept(plan):
        return next(line["bytes"] for line in plan["lines"] if line["what"] == "activations")

    auto, plain, fused = (planned(f"training.kernels={how}") for how in ("auto", "plain", "fused"))
    assert kept(auto) == kept(fused) < kept(plain)
    assert f"plain forms {plain['counted_bytes'] / 2**30:.1f} GiB" in auto["layers_counted"]
    assert not plain["layers_counted"]
    short = "training.max_steps=1"
    assert llmkit("train", str(recipe_file), "--quiet", short)[0] == 0
    path = Path("runs/small/checkpoints/kernels.json")
    found = json.loads(path.read_text())
    chosen = {}
    for used in (True, False):
        path.write_text(json.dumps([each | {"used": used} for each in found]))
        chosen[used] = planned(short)
        assert "this run's training chose" in chosen[used]["layers_counted"]
    for used, how in ((True, "fused"), (False, "plain")):
        assert kept(chosen[used]) == kept(planned(f"training.kernels={how}"))
    assert "plain forms" in planned(short, "training.adapter.rank=2")["layers_counted"]


def test_a_warning_counts_what_the_processes_of_a_cpu_hold_together(tiny, prepared, recipe_file):
    recipe, data = load_recipe(recipe_file), prepared()
    needs = planning.make_plan(recipe, tiny, data).here.peak

    def warned(*processes):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(planning, "memory_of", lambda *_: 2 * needs)
            return planning.warning_of(recipe, tiny, data, processes=Processes(*processes))

    assert warned(1, Path(), "ddp") is None
    assert "needs about 3 x " in warned(3, Path(), "ddp")
    assert warned(3, Path(), "fsdp") is None
