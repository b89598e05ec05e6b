"""Say in annotators' words what decides each label: appearance, change, place, motion or sound."""

from __future__ import annotations

from typing import Any

# Block of features, as a training's metrics name it -> the words for it, each of which gets as much of its share. What
# blocks give one word is added up.
WORDS = {
    "appearance": ["looks"],
    "appearance, mean subtracted": ["looks"],
    "change": ["change"],
    "place": ["place"],
    "motion": ["motion"],
    "motion, mean subtracted": ["motion"],
    "sound": ["sound"],
    "motion, change and appearance, mean subtracted": ["looks", "change", "motion"],
    "started from": ["the project that it started from"],
}
MEANINGS = {
    "looks": "what the picture shows",
    "change": "how that becomes different within a second",
    "place": "where in the picture something is",
    "motion": "how much moves, and whether it grows",
    "sound": "pitch and loudness",
}
# Shares from which on one sense decides alone, or mostly; and from which on another one is worth a word.
ALONE, MOSTLY, COUNTS = 0.8, 0.5, 0.15
# A shorter event is below what anybody marks.
SHORTEST_SECONDS = 0.1


def sentences(metrics: dict[str, Any]) -> dict[str, str]:
    """A sentence for each label that has examples.

    Args:
        metrics: of a control tag's training; `learnt` as of `MultiLabelLSTM.fit`, `score` as of `Trainer.score`.
    """
    segments = ((metrics.get("score") or {}).get("segments") or {}).get("per_label") or {}
    known = {label: values for label, values in (metrics.get("learnt") or {}).items() if isinstance(values, dict)}
    return {
        label: _sentence(values)
        for label, values in known.items()
        if (segments.get(label) or {}).get("support", 1) and _shares(values)
    }


def meanings(found: dict[str, str]) -> list[str]:
    """What the words in such sentences mean, each as "word: meaning"."""
    return [f"{word}: {meaning}" for word, meaning in MEANINGS.items() if any(word in one for one in found.values())]


def _shares(values: dict[str, Any]) -> list[tuple[str, float]]:
    """The share of each word, the largest first."""
    shares: dict[str, float] = {}
    for block, words in WORDS.items():
        if isinstance(values.get(block), int | float):
            for word in words:
                shares[word] = shares.get(word, 0.0) + values[block] / len(words)
    return sorted(((word, share) for word, share in shares.items() if share > 0), key=lambda one: -one[1])


def _sentence(values: dict[str, Any]) -> str:
    (first, largest), *rest = _shares(values)
    others = [word for word, share in rest if share >= COUNTS]
    if largest >= ALONE or (largest >= MOSTLY and not others):
        text = f"decided by {'almost nothing but ' if largest >= ALONE else ''}{first}"
    elif largest >= MOSTLY:
        text = f"decided mostly by {first}; {join(others)} count{'s' * (len(others) == 1)} too"
    else:
        text = f"decided by {join([first, *others])}"
    shortest = values.get("shortest") or 0.0
    return text + (f". Events of less than {shortest:.1f} s are ignored" if shortest >= SHORTEST_SECONDS else "")


def join(words: list[str]) -> str:
    """Words as a sentence lists them: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
