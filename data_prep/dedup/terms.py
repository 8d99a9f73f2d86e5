"""What a certificate may claim: the measures and thresholds that were asked for, no others."""

from typing import Any

from data_prep.dedup.certificates import DUPLICATES, Certificate
from data_prep.dedup.deduplicate import DedupConfig
from data_prep.dedup.minhash import MinHashConfig


def broken_terms(certificate: Certificate, config: DedupConfig, *, in_validation: bool) -> str:
    """Say how a certificate differs from the configuration.

    A certificate holds by its own threshold; one that names a lower threshold than the person did,
    or a measure that is off, would hold as well.

    Args:
        certificate: of a removed row.
        config: which duplicates are removed.
        in_validation: it says why training lost a row that the validation's own source has.

    Returns:
        What is wrong; empty when nothing is.
    """
    measure = certificate.measure
    minhash, semantic = config.minhash or MinHashConfig(), config.semantic
    asked = {
        "equal": config.exact and not in_validation,
        "same words": config.same_words or config.minhash or in_validation,
        "jaccard": config.minhash or in_validation,
        "cosine": semantic and not in_validation,
        "group": in_validation,
        "question": in_validation,
        "opposite": not in_validation,
    }
    if not asked[measure]:
        return f"is certified by {measure}, which was not asked for"
    settings = semantic if measure == "cosine" and semantic else minhash
    counted = measure in ("jaccard", "cosine")
    terms: dict[str, Any] = {"threshold": settings.threshold if counted else 1.0}
    if not counted:
        terms["similarity"] = 1.0
    if measure in DUPLICATES and measure != "equal":
        terms["on"] = settings.on
    if counted:
        terms["numbers"] = settings.numbers
    if measure == "jaccard":
        terms["ngram"] = minhash.ngram
    for name, value in terms.items():
        if (said := getattr(certificate, name)) != value:
            return f"is certified with {name} {said}, not {value}"
    return ""
