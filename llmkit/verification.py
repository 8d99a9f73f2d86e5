"""trained = merged = served: measured against a running server, with a verdict.

Four checks, each with its figures:

- ``rendering``: for every sample row, the token ids that the server makes of its messages are
  the ids that training saw before the answer.
- ``merging``: the merged weights predict what the adapter on its base predicts.
- ``serving``: what the server generates greedily is what transformers finds most likely on the
  same weights, and their log-probabilities agree.
- ``stopping``: the template's stop token ends generation.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import PreTrainedModel

from data_prep.prepared import Sample
from llmkit.models.loading import choose_device, load_base, quiet

GENERATED_ROWS = 6
GENERATED_TOKENS = 32
MOST_GREEDY_REGRET = 0.5
"""Nats by which a greedily served token may be less likely than the best one. Between two engines
in bfloat16 near ties fall either way; a wrong engine or template gives whole nats."""
MOST_MEAN_LOGPROB_GAP = 0.1
"""Mean absolute difference of log-probabilities, nats."""


@dataclass(frozen=True)
class Check:
    """One law, and whether it held."""

    name: str
    passed: bool
    figures: dict[str, Any]
    problem: str = ""
    """What to tell a person when it failed."""


@dataclass(frozen=True)
class Verdict:
    """All checks of one model."""

    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """For ``verification.json``."""
        return {"passed": self.passed, "checks": [asdict(check) for check in self.checks]}


def verify(
    server_root: str,
    model_name: str,
    merged: Path,
    samples: Sequence[Sample],
    merge_figures: dict[str, Any],
    max_divergence: float,
    stop_ids: Sequence[int],
    device: str = "auto",
    make_room: Callable[[], None] = lambda: None,
) -> Verdict:
    """Compare a running server with training and with transformers.

    Args:
        server_root: ``http://host:port``.
        model_name: the served name.
        merged: the folder that is served.
        samples: rows of the prepared data set.
        merge_figures: what `llmkit.models.merging.merge` measured.
        max_divergence: the recipe's ``merge.max_divergence``.
        stop_ids: the template's stop tokens.
        device: where transformers computes.
        make_room: called when the server has answered everything and before transformers loads
            the weights: on a GPU the server holds nearly all of the memory.
    """
    quiet()
    client = Served(server_root, model_name)
    rendering, stopping = (
        check_rendering(client, samples),
        check_stopping(client, samples, stop_ids),
    )
    answers = [client.generate(sample, GENERATED_TOKENS) for sample in samples[:GENERATED_ROWS]]
    make_room()
    model = load_base(merged, quantization="none", device=choose_device(device))
    merging, serving = check_merging(merge_figures, max_divergence), check_serving(answers, model)
    return Verdict([rendering, merging, serving, stopping])


@dataclass(frozen=True)
class Generation:
    """What the server answered to one sample."""

    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float]
    """Of each generated id."""
    finish_reason: str


class Served:
    """The model behind a server, asked as a client asks it."""

    def __init__(self, root: str, model: str) -> None:
        self.root = root
        self.model = model
        self._http = httpx.Client(base_url=root, timeout=300, trust_env=False)

    def prompt_ids(self, sample: Sample) -> list[int]:
        """The ids the server makes of a sample's prompt."""
        body: dict[str, Any] = {"model": self.model}
        if sample.messages:
            body |= {"messages": sample.messages, "add_generation_prompt": True}
            body |= {"tools": sample.tools} if sample.tools else {}
        else:
            body |= {"prompt": sample.prompt}
        return list(self._post("/tokenize", body)["tokens"])

    def generate(self, sample: Sample, max_tokens: int, **options: Any) -> Generation:
        """Answer a sample greedily."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": 0,
            # A model's generation_config may set these, and they act on greedy answers too.
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "return_token_ids": True,
        }
        if sample.messages:
            body |= {"messages": sample.messages, "logprobs": True} | options
            # The tools are in the prompt, as in training; their calls are read as text.
            body |= {"tools": sample.tools, "tool_choice": "none"} if sample.tools else {}
            answer = self._post("/v1/chat/completions", body)
            choice = answer["choices"][0]
            logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
            prompt = answer["prompt_token_ids"]
        else:
            body |= {"prompt": sample.prompt, "logprobs": 1} | options
            answer = self._post("/v1/completions", body)
            choice = answer["choices"][0]
            logprobs = choice["logprobs"]["token_logprobs"]
            prompt = choice["prompt_token_ids"]
        return Generation(prompt, choice["token_ids"], logprobs, choice["finish_reason"])

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        response = self._http.post(path, json=body)
        response.raise_for_status()
        return response.json()


def check_rendering(client: Served, samples: Sequence[Sample]) -> Check:
    """Token ids of prompts: training = serving."""
    different = []
    for sample in samples:
        trained = sample.ids[: sample.prompt_tokens]
        served = client.prompt_ids(sample)
        if served != trained:
            first = next(
                (i for i, (a, b) in enumerate(zip(trained, served, strict=False)) if a != b),
                min(len(trained), len(served)),
            )
            different.append({"row": sample.where, "first_difference": first})
    problem = "" if samples else "no sample row to compare: every row was cut before its answer"
    if different:
        problem = (
            f"the server renders {len(different)} of {len(samples)} prompts to other tokens than "
            f"training did, the first at token {different[0]['first_difference']} of "
            f"{different[0]['row']}. The served chat template is not the trained one."
        )
    figures = {"rows": len(samples), "different": len(different), "examples": different[:5]}
    return Check("rendering", bool(samples) and not different, figures, problem)


def check_merging(figures: dict[str, Any], max_divergence: float) -> Check:
    """Merged weights = adapter on base, as the merge measured it."""
    target = figures["target"]
    found = figures["closeness"][target]
    passed = found["kl"] <= max_divergence
    problem = (
        "" if passed else f"the merged model is {found['kl']:.4f} nats away from the trained one"
    )
    return Check("merging", passed, {"target": target, **found}, problem)


def check_serving(answers: Sequence[Generation], model: PreTrainedModel) -> Check:
    """Greedy text and log-probabilities: server = transformers on the same weights."""
    regrets: list[float] = []
    gaps: list[float] = []
    for answer in answers:
        expected = _logprobs_after(model, answer.prompt_ids, answer.ids)
        chosen = expected.gather(-1, torch.tensor(answer.ids)[:, None])[:, 0]
        regrets += (expected.max(-1).values - chosen).tolist()
        gaps += (chosen - torch.tensor(answer.logprobs)).abs().tolist()
    mean_gap = sum(gaps) / max(1, len(gaps))
    worst = max(regrets, default=float("inf"))
    passed = worst <= MOST_GREEDY_REGRET and mean_gap <= MOST_MEAN_LOGPROB_GAP
    problem = ""
    if not passed:
        problem = (
            "the server does not compute what transformers computes on the same weights: a token "
            f"it chose greedily is {worst:.2f} nats less likely than the best one (allowed "
            f"{MOST_GREEDY_REGRET}), log-probabilities differ by {mean_gap:.3f} on average "
            f"(allowed {MOST_MEAN_LOGPROB_GAP}). Try serve.compile=false and serve.dtype=float32 "
            "to find out what part of the engine it is."
        )
    figures = {
        "tokens": len(regrets),
        "same_top_token": sum(regret == 0 for regret in regrets) / max(1, len(regrets)),
        "worst_regret": worst,
        "mean_logprob_gap": mean_gap,
        "worst_logprob_gap": max(gaps, default=float("inf")),
    }
    return Check("serving", passed, figures, problem)


@torch.no_grad()
def _logprobs_after(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Log-probabilities where each answer token was chosen, ``[answer, vocabulary]``."""
    ids = torch.tensor([prompt + answer], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    found: torch.Tensor = logits.float().log_softmax(-1).cpu()
    return found


def check_stopping(client: Served, samples: Sequence[Sample], stop_ids: Sequence[int]) -> Check:
    """Each stop token, forced upon the server by a bias, ends the answer at once."""
    if not samples:
        problem = "no sample row to ask the server with"
        return Check("stopping", passed=False, figures={"stop_ids": {}}, problem=problem)
    sample = samples[0]
    stops = {}
    for stop_id in stop_ids:
        answer = client.generate(sample, 8, logit_bias={str(stop_id): 100})
        stops[str(stop_id)] = answer.finish_reason == "stop" and answer.ids[-1:] == [stop_id]
    problem = ""
    if not all(stops.values()):
        failing = ", ".join(stop for stop, ends in stops.items() if not ends)
        problem = (
            f"the stop token (id {failing}) does not end generation on the server: answers would "
            "run to the limit. generation_config.json of the served folder must name it."
        )
    return Check("stopping", bool(stops) and all(stops.values()), {"stop_ids": stops}, problem)
