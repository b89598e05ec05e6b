"""Map a network's classes to the labels of a control tag."""

from __future__ import annotations

from collections.abc import Iterable

from label_studio_sdk.label_interface.control_tags import ControlTag


def build_label_map(control: ControlTag, names: Iterable[str]) -> dict[str, str]:
    """Maps a model's class names to the labels of a control tag.

    A label's attribute `predicted_values` names its classes, separated by commas. A label without the attribute has the
    class of its own name, or else the class whose name differs in case only.

    Args:
        control: the control tag.
        names: the model's class names.

    Returns:
        Class name -> label.
    """
    names = list(names)
    known = set(names)
    lower = {name.lower(): name for name in reversed(names)}
    label_map: dict[str, str] = {}
    for label, tag in control.labels_attrs.items():
        predicted = tag.attr.get("predicted_values")
        if predicted:
            wanted = [value.strip() for value in predicted.split(",")]
        else:
            wanted = [label if label in known else lower.get(label.lower(), "")]
        label_map.update({name: label for name in wanted if name in known})
    return label_map
