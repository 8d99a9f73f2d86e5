"""A generation in a few lines, for a terminal."""

from llmkit.generation.running import Done


def tell(done: Done) -> str:
    """What was made, what was left out and why, what it took, and what to do next."""
    figures = done.figures
    lines = [f"{figures['rows']:,} rows from {figures['seeds']:,} seeds ({figures['method']})"]
    if figures["reasons"]:
        told = ", ".join(f"{reason} {count:,}" for reason, count in figures["reasons"].items())
        lines.append(f"left out {figures['left_out']:,}: {told}")
    for each in figures["spent"]:
        cost = f", {each['cost']:.4f} {each['currency']}" if "cost" in each else ""
        lines.append(
            f"{each['model']}: {each['calls']:,} calls, {each['prompt_tokens']:,} + "
            f"{each['completion_tokens']:,} tokens{cost}"
        )
    lines += [
        f"  {stage['stage']:<16} {stage['all']:>8,} instructions, "
        f"{stage['distinct']:.1f} effectively different"
        for stage in figures.get("coverage", [])
    ]
    repeated = figures["repetitions"]["rows"]
    if repeated:
        lines.append(
            f"{repeated:,} rows repeat others; data.dedup of a training recipe removes them"
        )
    lines += [
        f"{one['set']}: {one['rows']:,} rows hold texts of it"
        for one in figures["contamination"]
        if one["rows"]
    ]
    lines.append(f"report: {done.folder / 'report.html'}")
    if figures["rows"]:
        lines.append(f"train on them: data.sources: [{{path: {done.folder / 'rows.jsonl'}}}]")
    return "\n".join(lines)
