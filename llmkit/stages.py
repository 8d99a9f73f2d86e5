"""prep -> train -> merge -> verify -> evaluate: what each depends on, does, and leaves.

Every function here does one stage of a run, or finds that it need not be done. The work itself is
in the packages; this module names inputs and outputs.
"""

import hashlib
import json
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from data_prep.chat_templates import ChatTemplate, load_template
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.sources import SourceConfig
from data_prep.tokenizer import load_tokenizer
from llmkit.console import View
from llmkit.errors import CheckFailed, UsageError
from llmkit.files import content_hash, whole_folder, write_json, write_text
from llmkit.models.catalog import ResolvedModel, resolve
from llmkit.recipe import Recipe, dump_recipe, load_recipe
from llmkit.run import Outcome, Run, code_hash, flatten


@dataclass
class Project:
    """A recipe, its run directory, and what both need."""

    recipe: Recipe
    run: Run
    view: View
    _open: ExitStack = field(default_factory=ExitStack)
    _before: tuple[str, dict[str, Any]] = field(default=("", {}), init=False)

    @cached_property
    def model(self) -> ResolvedModel:
        """The base model, fetched when needed."""
        with self.view.working(f"finding {self.recipe.model.base}"):
            return resolve(self.recipe.model.base, self.view.say)

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template that data is rendered with, saved and served."""
        tokenizer = load_tokenizer(self.model.folder)
        return load_template(self.recipe.model.chat_template, tokenizer)

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self.run.folder

    @property
    def report_path(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    def output_hash(self, stage: str, output: str) -> str:
        """The recorded hash of a stage's output.

        Raises:
            UsageError: the stage was not done yet, or something else changed what it left.
        """
        record = self.run.record(stage)
        command = f"llmkit {stage} {'RECIPE' if stage in ('prep', 'train') else self.folder}"
        if record is None or not (self.folder / output).exists():
            raise UsageError(
                f"{self.folder}: {output}/ is not there yet; `{command}` makes it. "
                "`llmkit run RECIPE` does every stage."
            )
        damage = self.run.damage(stage)
        if damage:
            raise UsageError(f"{self.folder}: {'; '.join(damage)}. `{command}` makes it again.")
        return str(record["outputs"][output]["sha256"])

    def data(self) -> PreparedDataset:
        """The prepared data set."""
        return PreparedDataset.open(self.folder / "data")

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.enter_context(self.run)
            path = self.folder / "recipe.yaml"
            before = path.read_text(encoding="utf-8") if path.is_file() else ""
            self._before = before, self.run.manifest()
            write_text(path, dump_recipe(self.recipe))
            self._open = opening.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Write the report, of what there is when a stage failed, and let the run go."""
        self.view.close()
        with self._open:
            if error is None:
                report(self)
                return
            with suppress(Exception):  # what failed first is what a person must read
                self._keep_recipe_of_what_is_there()
                report(self)

    def _keep_recipe_of_what_is_there(self) -> None:
        """Put the earlier recipe back when no stage was done with this one."""
        recipe, manifest = self._before
        if recipe and manifest["stages"] and self.run.manifest() == manifest:
            write_text(self.folder / "recipe.yaml", recipe)


def open_run(folder: Path, view: View) -> Project:
    """The project of an existing run directory.

    Raises:
        UsageError: there is no run there.
    """
    if not (folder / "recipe.yaml").is_file():
        raise UsageError(f"{folder}: not a run directory (no recipe.yaml). Try: llmkit run RECIPE")
    return Project(load_recipe(folder / "recipe.yaml"), Run(folder), view)


def prep(project: Project) -> Outcome:
    """Rows -> packed sequences and their ledger."""
    config = project.recipe.data
    template = project.template

    def work() -> dict[str, Any]:
        with whole_folder(project.folder / "data") as folder:
            return prepare(config, template, folder, project.view.count).figures

    inputs = flatten(config.model_dump(mode="json"), "data.")
    inputs |= {f"rows.{i}": _source_hash(s) for i, s in enumerate(_sources(project.recipe))}
    inputs |= {
        "tokenizer": template.tokenizer.content_hash,
        "chat_template": _text_hash(template.source),
        "code": code_hash("data_prep"),
    }
    outcome = project.run.stage("prep", inputs, ["data"], work)
    _report(project, "prep", outcome, _prep_line(outcome.figures))
    return outcome


def train(project: Project) -> Outcome:
    """Packed sequences -> an adapter."""
    from llmkit.models.loading import choose_device, compute_dtype
    from llmkit.training import sft
    from llmkit.training.checkpoints import prepare_folder

    recipe = project.recipe
    data = project.data()
    data_hash = project.output_hash("prep", "data")
    device = choose_device(recipe.model.device)
    sft.plan_steps(recipe.training, data.figures["packs"])
    inputs = flatten(recipe.training.model_dump(mode="json"), "training.")
    inputs |= {
        "data": data_hash,
        "model": project.model.content_hash(),
        "quantization": recipe.model.quantization,
        "compute": f"{device} {compute_dtype(device)}",
    }

    def work() -> dict[str, Any]:
        checkpoints = project.folder / "checkpoints"
        record = project.run.record("train")
        resume_from = prepare_folder(checkpoints, inputs, record["finished"] if record else None)
        with whole_folder(project.folder / "adapter") as folder:
            return sft.train(
                recipe.training,
                recipe.model,
                project.model.folder,
                data,
                checkpoints=checkpoints,
                resume_from=resume_from,
                events_path=project.folder / "events.jsonl",
                adapter=folder,
                view=project.view,
            )

    code = {"code": code_hash("llmkit/training", "llmkit/models")}
    outcome = project.run.stage("train", inputs | code, ["adapter"], work)
    _report(project, "train", outcome, _train_line(outcome.figures))
    return outcome


def merge(project: Project) -> Outcome:
    """An adapter and its base -> one model, measured against both."""
    recipe = project.recipe
    adapter_hash = project.output_hash("train", "adapter")
    template = project.template
    adapter = project.folder / "adapter"

    def work() -> dict[str, Any]:
        from llmkit.models import merging

        with (
            project.view.working("merging and comparing with the trained model"),
            whole_folder(project.folder / "merged") as folder,
        ):
            return merging.merge(
                recipe.merge,
                recipe.model,
                project.model.folder,
                adapter,
                project.data().samples(),
                chat_template=template.source,
                stop_ids=[template.stop_id],
                folder=folder,
            )

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
    _report(project, "merge", outcome, _merge_line(outcome.figures))
    return outcome


def verify(project: Project, servers: "Servers") -> Outcome:
    """Trained = merged = served, measured on a real server.

    Raises:
        CheckFailed: a check did not hold; ``verification.json`` has every figure.
    """
    recipe = project.recipe

    def work() -> dict[str, Any]:
        from llmkit import verification

        server = servers.tuned()
        with project.view.working("verifying: trained = merged = served"):
            record = project.run.record("merge") or {}
            verdict = verification.verify(
                server.root_url,
                server.model.name,
                project.folder / "merged",
                project.data().samples(),
                record["figures"],
                recipe.merge.max_divergence,
                [project.template.stop_id],
                recipe.model.device,
            )
        write_json(project.folder / "verification.json", verdict.as_dict())
        return verdict.as_dict()

    inputs = flatten(recipe.serve.model_dump(mode="json", exclude=_NOT_DECISIVE), "serve.")
    inputs |= {
        "merged": project.output_hash("merge", "merged"),
        "samples": content_hash(project.folder / "data" / "samples.jsonl"),
        "max_divergence": str(recipe.merge.max_divergence),
        "code": code_hash("serve", "llmkit/verification.py"),
    }
    outcome = project.run.stage("verify", inputs, ["verification.json"], work)
    if not outcome.figures["passed"]:
        failed = [check for check in outcome.figures["checks"] if not check["passed"]]
        lines = "\n  ".join(f"{check['name']}: {check['problem']}" for check in failed)
        raise CheckFailed(
            f"verification failed; see {project.folder / 'verification.json'}\n  {lines}"
        )
    _report(project, "verify", outcome, _verify_line(outcome.figures))
    return outcome


_NOT_DECISIVE = {"host", "port", "drain_seconds", "log_level"}
"""Server settings without any influence on answers."""


def evaluate(project: Project, servers: "Servers") -> Outcome:
    """The same questions to the base and to the tuned model."""
    from llmkit.evaluation import answers

    config = project.recipe.evaluation
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
    inputs |= {
        "merged": merged_hash,
        "model": project.model.content_hash(),
        "questions": _text_hash(json.dumps([q.messages for q in questions])),
        "code": code_hash("llmkit/evaluation"),
    }
    outcome = project.run.stage("evaluate", inputs, ["evaluation.json"], work)
    _report(project, "evaluate", outcome, _evaluate_line(outcome.figures))
    return outcome


def report(project: Project) -> Path:
    """Write the run's HTML report from what the stages left."""
    from llmkit.report.html import render

    write_text(project.report_path, render(project.folder))
    return project.report_path


class Servers:
    """Our server on the tuned and on the base model; each is started when first asked for."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._running: dict[str, Any] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def tuned(self) -> Any:
        """A ready server of the merged model."""
        recipe = self._project.recipe
        return self._start("tuned", self._project.folder / "merged", recipe.name)

    def base(self) -> Any:
        """A ready server of the base model; the tuned one is shut down to make room."""
        model = self._project.model
        return self._start("base", model.folder, Path(model.name).name)

    def _start(self, side: str, folder: Path, name: str) -> Any:
        from serve.model import open_model
        from serve.process import ServerProcess

        if side not in self._running:
            self._open.close()
            self._running.clear()
            log = self._project.folder / f"server-{side}.log"
            process = ServerProcess(open_model(folder, name=name), log, self._project.recipe.serve)
            with self._project.view.working(f"starting the server on the {side} model"):
                self._running[side] = self._open.enter_context(process)
        return self._running[side]


def _sources(recipe: Recipe) -> list[SourceConfig]:
    validation = recipe.data.validation
    own = [validation] if isinstance(validation, SourceConfig) else []
    return [*recipe.data.sources, *own]


def _source_hash(source: SourceConfig) -> str:
    path = Path(source.path)
    return content_hash(path) if path.exists() else f"{source.path}/{source.split}"


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _report(project: Project, name: str, outcome: Outcome, line: str) -> None:
    project.view.stage(name, line, outcome)


def _prep_line(figures: dict[str, Any]) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in figures["dropped"].items())
    return (
        f"{figures['rows_in']} rows in, {figures['train_rows']} to train on, "
        f"{figures['validation_rows']} held out, {figures['rows_dropped']} dropped"
        f"{f' ({dropped})' if dropped else ''}; {figures['packs']} packs, "
        f"{figures['packing_efficiency']:.1%} full"
    )


def _train_line(figures: dict[str, Any]) -> str:
    return (
        f"{figures['steps']} steps, loss {figures['loss_first']:.3f} -> "
        f"{figures['loss_last']:.3f}, {figures['tokens_per_second']:.0f} tokens/s, "
        f"{figures['peak_memory_mib']} MiB, {figures['trainable_parameters']:,} parameters trained"
    )


def _merge_line(figures: dict[str, Any]) -> str:
    found = figures["closeness"]
    sides = "; ".join(
        f"{target}: KL {close['kl']:.4f}, {close['top1_changed']:.1%} top tokens changed"
        for target, close in found.items()
    )
    return f"into {figures['target']} ({sides})"


def _verify_line(figures: dict[str, Any]) -> str:
    return "trained = merged = served: " + ", ".join(check["name"] for check in figures["checks"])


def _evaluate_line(figures: dict[str, Any]) -> str:
    if not figures["questions"]:
        return "no questions asked for"
    if figures["judged"]:
        return (
            f"{figures['judged']} questions: base {figures['base_right']} right, "
            f"tuned {figures['tuned_right']} right"
        )
    return f"{figures['questions']} questions to base and tuned model, not judged"
