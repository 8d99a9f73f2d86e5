"""A plan as lines for a person."""

from collections.abc import Iterator

from llmkit.planning.plan import MemoryPlan, gib

MIB = 2**20
PHASES = {
    "loading": "reading the base",
    "checks": "proving, before training, that packed rows are apart",
    "step": "the longest step, summed below",
    "evaluation": "the loss on rows held out",
    "saving": "written from where they are: no second copy",
}


def plan_lines(plan: MemoryPlan) -> Iterator[str]:
    """The plan: sizes, arithmetic, machines, steps and time."""
    shapes = plan.shapes
    share = shapes.trainable / shapes.parameters
    yield f"{plan.name}: on {plan.device}, computing in {plan.compute_dtype}"
    yield f"  {shapes.parameters:,} parameters, {shapes.trainable:,} trained ({share:.1%})"
    yield f"  longest step: {shapes.tokens:,} tokens, {shapes.supervised:,} supervised"
    yield f"    ({plan.source})"
    if plan.layers:
        yield f"  counted: {plan.layers}"
    yield ""
    yield "the longest step, MiB"
    wide = max(len(line.what) for line in plan.here.lines)
    for line in plan.here.lines:
        yield f"  {line.what:<{wide}} {line.bytes / MIB:>10,.0f}  {line.how}"
    yield f"  {'sum':<{wide}} {plan.here.phases['step'] / MIB:>10,.0f}"
    yield from _a_parameter(plan)
    yield ""
    yield "each part at its peak, MiB"
    wide = max(map(len, plan.here.phases))
    for phase, size in plan.here.phases.items():
        mark = "  <- the most" if size == plan.here.peak else ""
        yield f"  {phase:<{wide}} {size / MIB:>10,.0f}  {PHASES[phase]}{mark}"
    if plan.measured is not None:
        off = plan.here.peak / plan.measured - 1
        yield f"probe: {plan.measured / MIB:,.0f} MiB measured; counted {off:+.1%}"
    yield ""
    yield from _machines(plan)
    yield ""
    yield from _length(plan)


def _a_parameter(plan: MemoryPlan) -> Iterator[str]:
    """Weights, gradients and moments over the parameters that they are for."""
    shapes = plan.shapes
    if not shapes.added and shapes.trainable == shapes.parameters:
        moments = shapes.moments / shapes.trainable
        yield (
            f"  {8 + moments:.3g} bytes a parameter: 4 weight + 4 gradient + {moments:.3g} "
            "optimiser"
        )
    elif shapes.quantized:
        each = (shapes.quantized + shapes.scales) / shapes.quantized_parameters
        moments = shapes.moments / shapes.trainable
        yield (
            f"  {each:.3f} bytes a quantised weight; {8 + moments:.3g} bytes a trained parameter: "
            f"4 weight + 4 gradient + {moments:.3g} optimiser"
        )


def _machines(plan: MemoryPlan) -> Iterator[str]:
    verdict = "fits" if plan.fits else "does NOT fit"
    yield f"here: {verdict}: {gib(plan.peak)} of {gib(plan.available)} GiB on {plan.device}"
    if not plan.fits:
        yield f"  {_remedy(plan.change)}"
    for fit in plan.gpus:
        words = "fits" if fit.fits else f"does not fit; {_remedy(fit.change)}"
        yield f"GPU of {fit.gib:>2} GiB: {words}"
    yield f"  a GPU would need about {gib(plan.gpus[0].needs)} GiB (not measured yet)"
    yield "  of one process; of N (--processes N) each takes as much, less where they share weights"


def _remedy(change: str | None) -> str:
    return f"this would: {change}" if change else "no single change makes it fit"


def _length(plan: MemoryPlan) -> Iterator[str]:
    if plan.steps is None:
        yield "steps: known once the data is prepared: llmkit prep RECIPE"
        return
    tokens = f", about {plan.tokens:,} tokens" if plan.tokens is not None else ""
    yield f"steps: {plan.steps:,}{tokens}, in one process"
    if plan.tokens_per_second is None:
        yield "time: not known; --probe measures a step"
        return
    rate = f"{plan.tokens_per_second:,.0f} tokens/s {plan.rate_source}"
    if plan.seconds is None:
        yield f"time: at {rate}; how many tokens there are is known once the data is prepared"
    else:
        yield f"time: about {_spelled(plan.seconds)} of steps, at {rate}"


def _spelled(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
