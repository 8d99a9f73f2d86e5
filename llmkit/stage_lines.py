"""What a stage's figures come to, in one line for a person."""

from typing import Any

SHOWN = ("margin", "accuracy", "divergence")
"""Of the figures that a method watches beside its loss, those for a line."""


CHANGED = {"tokens": "top tokens changed", "pairs": "pairs decided otherwise"}
"""What a share of a merged model's decisions is said of."""


def initialize_line(figures: dict[str, Any]) -> str:
    """How large the new model is, and the loss to expect of it."""
    return (
        f"{figures['parameters']:,} random weights, {figures['tokens']} tokens in "
        f"{figures['embedding_rows']} rows; a guess among them has a loss of "
        f"{figures['loss_of_a_guess']:.2f}"
    )


def prep_line(figures: dict[str, Any]) -> str:
    """Rows in, kept, held out and dropped."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in figures["dropped"].items())
    repeats = figures["train_repeats"]
    again = f" ({repeats} of them repeats)" if repeats else ""
    return (
        f"{figures['rows_in']} rows in, {figures['train_rows']} to train on{again}, "
        f"{figures['validation_rows']} held out, {figures['rows_dropped']} dropped"
        f"{f' ({dropped})' if dropped else ''}{_cut(figures)}; {figures['packs']} packs, "
        f"{figures['packing_efficiency']:.1%} full"
    )


def mixture_lines(figures: dict[str, Any]) -> list[str]:
    """The share of each source, as it was asked for and as it came out."""
    return [
        f"mixture: {share['source']}: {share['realised']:.1%} of {share['by']}, "
        f"{share['wanted']:.1%} wanted; {share['rows']} rows"
        + (f" and {share['repeats']} repeats of them" if share["repeats"] else "")
        for share in figures["mixture"]
    ]


def format_lines(figures: dict[str, Any]) -> list[str]:
    """As what each source was read, where that was told from its fields."""
    because: dict[str, str] = figures["formats_because"]
    return [f"{source}: {figures['formats'][source]}: {why}" for source, why in because.items()]


def unused_line(unused: dict[str, int]) -> str:
    """Which fields were left aside, and of how many rows."""
    fields = ", ".join(f"{field} ({rows} rows)" for field, rows in unused.items())
    return f"fields that nothing is made of: {fields}"


def _cut(figures: dict[str, Any]) -> str:
    """What became of rows that were too long."""
    parts = []
    if figures["rows_truncated"]:
        parts.append(f"{figures['rows_truncated']} truncated")
    if figures["rows_split"]:
        parts.append(f"{figures['rows_split']} split into {figures['pieces']} pieces")
    if figures["tokens_cut"]:
        parts.append(f"{figures['tokens_cut']} of {figures['tokens_in']} tokens cut off")
    return "".join(f", {part}" for part in parts)


def train_line(figures: dict[str, Any]) -> str:
    """Steps, losses, speed and memory."""
    together = figures.get("processes", 1)
    how = f" in {together} processes" if together > 1 else ""
    watched = "".join(
        f", {name} {ends[0]:.3f} -> {ends[1]:.3f}"
        for name, ends in figures.get("watched", {}).items()
        if name in SHOWN
    )
    return (
        f"{figures['steps']} steps{how}, loss {figures['loss_first']:.3f} -> "
        f"{figures['loss_last']:.3f}{watched}, {figures['tokens_per_second']:.0f} tokens/s, "
        f"{figures['peak_memory_mib']} MiB, {figures['trainable_parameters']:,} parameters trained"
    )


def merge_line(figures: dict[str, Any]) -> str:
    """How close each merge target came."""
    found, changed = figures["closeness"], CHANGED[figures["decisions"]]
    sides = "; ".join(
        f"{target}: KL {close['kl']:.4f}, {close['top1_changed']:.1%} {changed}"
        for target, close in found.items()
    )
    return f"into {figures['target']} ({sides})"


def verify_line(figures: dict[str, Any]) -> str:
    """The checks that held."""
    return "trained = merged = served: " + ", ".join(check["name"] for check in figures["checks"])


def evaluate_line(figures: dict[str, Any]) -> str:
    """How many questions each side answered."""
    if not figures["questions"]:
        return "no questions asked for"
    if figures["judged"]:
        return (
            f"{figures['judged']} questions: base {figures['base_right']} right, "
            f"tuned {figures['tuned_right']} right"
        )
    return f"{figures['questions']} questions to base and tuned model, not judged"
