"""Map a network's classes to the labels of a control tag."""

from __future__ import annotations

from collections.abc import Iterable

from label_studio_sdk.label_interface.control_tags import ControlTag


def classes_of_labels(control: ControlTag, names: Iterable[str]) -> dict[str, list[str]]:
    """Finds the classes of each label of a control tag; those that the model hasn't are left out.

    A label's attribute `predicted_values` names its classes, separated by commas. A label without the attribute has the
    class of its own name, or else the class whose name differs in case only.

    Args:
        control: the control tag.
        names: the model's class names.

    Returns:
        Label -> class names, each once. Labels may share a class.
    """
    names = list(names)
    known = set(names)
    lower = {name.lower(): name for name in reversed(names)}
    classes: dict[str, list[str]] = {}
    for label, tag in control.labels_attrs.items():
        predicted = tag.attr.get("predicted_values")
        if predicted:
            wanted = [value.strip() for value in predicted.split(",")]
        else:
            wanted = [label if label in known else lower.get(label.lower(), "")]
        classes[label] = [name for name in dict.fromkeys(wanted) if name in known]
    return classes


def build_label_map(control: ControlTag, names: Iterable[str]) -> dict[str, str]:
    """The same as class name -> label, which label-studio-ml's models ask for; the last of several labels counts."""
    return {name: label for label, found in classes_of_labels(control, names).items() for name in found}
