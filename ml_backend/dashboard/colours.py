"""The colours of a project's labels."""

from __future__ import annotations

from ml_backend.base import LabelStudioMLBase

UNKNOWN_COLOUR = "#36b37e"  # of a label without the attribute background


def colours(model: LabelStudioMLBase) -> dict[str, dict[str, str]]:
    """Control tag's name -> label -> CSS colour; of a model with parts, only of these."""
    if model.control_models:
        return {part.from_name: part.tag.colours for part in model.control_models}
    return {
        control.name: {
            label: tag.attr.get("background") or UNKNOWN_COLOUR for label, tag in control.labels_attrs.items()
        }
        for control in model.label_interface.controls
        if getattr(control, "labels_attrs", None)
    }
