"""The first stage of a run: rows -> packed sequences, their ledger and report; and the audit."""

import hashlib
import json
from pathlib import Path
from typing import Any

from data_prep.contamination.report import ContaminationReport
from data_prep.errors import RowsRefused
from data_prep.filters.settings import perplexity_filter
from data_prep.pipeline import prepare
from data_prep.settings import DataConfig
from data_prep.sources.config import SourceConfig
from data_prep.sources.files import find_files
from llmkit import stage_lines
from llmkit.errors import CheckFailed, UsageError
from llmkit.files import content_hash, remove, whole_folder, write_text
from llmkit.models.catalog import context_length, find_local, refuse_other_kind
from llmkit.models.data_models import DataModels
from llmkit.project import Project
from llmkit.recipe_check import data_models
from llmkit.report.data_report import render_data_report
from llmkit.run import Outcome, code_hash, flatten, package_inputs
from llmkit.training.units import UNITS_OF, unbalanced_labels

HOW_NOT_WHAT = {"workers", "shard_rows"}
"""Settings of the data that change how it is prepared and not what comes out."""
DATA_REPORT = "data-report.html"
UNFINISHED = ".prep-"
"""How the folder begins where an interrupted preparation finds what it had done."""


RENDERING = {"tokenizer", "chat_template", "units", "rows"}
"""What the tokens of a row depend on, besides the row."""


def rendering_inputs(project: Project) -> dict[str, str]:
    """The values of `RENDERING`, those that a recipe has."""
    template = project.template
    found = {
        "tokenizer": template.tokenizer.content_hash,
        "chat_template": _text_hash(template.source),
        "units": UNITS_OF[project.recipe.training.method],
    }
    return found if template.turns else found | {"rows": "plain text"}


def prep(project: Project) -> Outcome:
    """Rows -> packed sequences and their ledger."""
    refuse_rows_longer_than_the_model(project)
    config, template = project.recipe.data, project.template
    units = UNITS_OF[project.recipe.training.method]
    for _, name, kind in data_models(config):  # before the hours that come before they are asked
        refuse_other_kind(name, kind, find_local(name))
    inputs = flatten(config.model_dump(mode="json", exclude=HOW_NOT_WHAT), "data.")
    for i, source in enumerate(config.all_sources):
        key = f"sources.{i}" if i < len(config.sources) else "validation"
        inputs[f"rows of data.{key} ({source.path})"] = source_hash(source)
    inputs |= _evaluation_sets(config) | _models(project)
    inputs |= rendering_inputs(project) | {"code": code_hash("data_prep")}
    unfinished = project.folder / f"{UNFINISHED}{_text_hash(json.dumps(inputs))[:16]}"

    def work() -> dict[str, Any]:
        for other in project.folder.glob(f"{UNFINISHED}*"):
            if other != unfinished:
                remove(other)
        with whole_folder(project.folder / "data") as folder:
            try:
                figures = prepare(
                    config,
                    template,
                    folder,
                    project.view.count,
                    units=units,
                    work=unfinished,
                    models=_data_models(project),
                ).figures
            except RowsRefused:  # other data or settings would not find these shards theirs
                remove(unfinished)
                raise
        remove(unfinished)
        report = render_data_report(project.recipe.name, project.folder / "data")
        write_text(project.folder / DATA_REPORT, report)
        return figures

    if project.run.record("prep") and (why := project.run.changes("prep", inputs)):
        project.view.say(f"prep is done again: {'; '.join(why[:3])}")
    outcome = project.run.stage("prep", inputs, ["data", DATA_REPORT], work)
    project.view.stage("prep", stage_lines.prep_line(outcome.figures), outcome)
    _tell(project, outcome.figures)
    return outcome


def _tell(project: Project, figures: dict[str, Any]) -> None:
    """Say what a person should know beside the stage's line."""
    for source, count in figures["sources"].items():
        if not figures["sources_kept"][source]:
            reasons = ", ".join(f"{n} {why}" for why, n in figures["dropped"].items())
            project.view.say(
                f"warning: {source}: none of its {count} rows is left; dropped in all: {reasons}. "
                f"See {project.folder / 'data' / 'dropped.jsonl'}"
            )
    for line in [*stage_lines.mixture_lines(figures), *stage_lines.format_lines(figures)]:
        project.view.say(line)
    if figures["fields_unused"]:
        project.view.say(stage_lines.unused_line(figures["fields_unused"]))
    if figures["contamination"]:
        for line in ContaminationReport.model_validate(figures["contamination"]).summary():
            project.view.say(line)
    for note in figures["notes"]:
        project.view.say(note)
    if note := unbalanced_labels(figures, project.recipe.training.preference):
        project.view.say(note)
    project.view.say(f"data report: {project.folder / DATA_REPORT}")


def refuse_changed_evidence(project: Project) -> None:
    """Refuse to audit what something else wrote into: making it again would hide that.

    Raises:
        CheckFailed: the prepared data is not what the run's manifest recorded.
    """
    damage = project.run.damage("prep")
    if damage:
        raise CheckFailed(
            f"{project.folder}: {'; '.join(damage)} since it was prepared, so there is nothing to "
            "audit. The same command without --audit makes it again."
        )


def audit(project: Project) -> None:
    """Replay the certificates of the prepared data.

    Raises:
        CheckFailed: one does not hold.
    """
    from data_prep.auditing import audit_prepared

    found = audit_prepared(
        project.recipe.data, project.template, project.data(), _data_models(project)
    )
    if found.problems:
        shown = "\n  ".join(found.problems[:10])
        count = len(found.problems)
        more = f"\n  ... and {count - 10} more" if count > 10 else ""
        raise CheckFailed(f"the audit found {count} problems:\n  {shown}{more}")
    project.view.say(f"audit: {found.rows} rows are each in one place, as the ledger counts them")
    project.view.say(f"audit: {found.duplicates} certificates of removed duplicates hold")
    if found.contradictions:
        project.view.say(f"audit: {found.contradictions} certificates of contradictions hold")
    if project.recipe.data.contamination:
        project.view.say(f"audit: {found.overlaps} certificates of evaluation texts hold")


def refuse_rows_longer_than_the_model(project: Project) -> None:
    """Refuse a context that the base model was not made for.

    Raises:
        UsageError: ``data.max_tokens`` is longer.
    """
    longest, wanted = context_length(project.model.folder), project.recipe.data.max_tokens
    if longest and wanted > longest:
        raise UsageError(
            f"data.max_tokens: {wanted}, but {project.recipe.model.name} was made for {longest} "
            "tokens. Lower it."
        )


def source_hash(source: SourceConfig) -> str:
    """A hash of the files that a source is read from; of a hub data set its name."""
    path = Path(source.path)
    files = find_files(source.path, source.split)
    if files is None:
        return content_hash(path) if path.is_dir() else f"{source.path}/{source.split}"
    if files == [path]:
        return content_hash(path)
    return _text_hash("".join(f"{file}\0{content_hash(file)}\n" for file in files))


def _evaluation_sets(config: DataConfig) -> dict[str, str]:
    sets = config.contamination.against if config.contamination else []
    return {
        f"texts of data.contamination.against.{i} ({each.path})": source_hash(
            SourceConfig(path=each.path)
        )
        for i, each in enumerate(sets)
    }


def _models(project: Project) -> dict[str, str]:
    """What decides the answers of models that look at the data."""
    config = project.recipe.data
    scored = perplexity_filter(config.filters)
    names = {name for _, name, _ in data_models(config)}
    if not names and not scored:
        return {}
    found = {f"data_model.{n}": content_hash(Path(n)) for n in sorted(names) if Path(n).is_dir()}
    if scored and not scored.model:
        found["data_model.base"] = project.model.content_hash()
    code = code_hash("llmkit/models/embedding.py", "llmkit/models/perplexity.py")
    packages = package_inputs("torch", "transformers", "sentence-transformers")
    return found | packages | {"code.data_models": code}


def _data_models(project: Project) -> DataModels:
    model = project.recipe.model
    return DataModels(project.model.folder, model.name, model.device, project.view.say)


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
