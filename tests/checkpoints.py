"""Make checkpoints for tests, of random weights that tell pictures apart; and Ultralytics' own numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from features.checkpoints import import_ultralytics


def write_checkpoint(
    path: Path,
    architecture: str = "yolov8n-cls",
    *,
    image_size: int = 224,
    seed: int = 0,
    transforms: Any = None,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Writes a model with random weights and returns its path.

    Untrained networks give nearly the same features for every picture. Here batch normalisation has seen pictures of
    noise at several scales, which spreads the features out, with biases that keep the network from being chaotic, and a
    classifier's last layer is scaled up until its probabilities differ. Scenes then differ as much (cosine 0.65) and
    rounding costs as much as with a trained checkpoint.

    Args:
        path: where to, ending in ".pt".
        architecture: Ultralytics' name of it.
        image_size: what the checkpoint says it was trained with.
        seed: of the weights.
        transforms: preprocessing that a classifier's checkpoint brings along.
        class_names: the first ones of a classifier's 1000 classes.
    """
    import_ultralytics()
    from ultralytics import YOLO

    torch.manual_seed(seed)
    yolo = YOLO(f"{architecture}.yaml")
    model = yolo.model
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # a plain average of what it has seen
            torch.nn.init.constant_(layer.bias, 0.5)
    model.train()
    with torch.no_grad():
        for scale in (2, 8, 32):
            noise = torch.rand(8, 3, 96 // scale, 96 // scale)
            model(torch.nn.functional.interpolate(noise, size=(96, 96), mode="bilinear"))
        if yolo.task == "classify":
            model.model[-1].linear.weight.mul_(10)
    model.eval()
    for index, name in enumerate(class_names or ()):
        model.names[index] = name
    if transforms is not None:
        model.transforms = transforms
    yolo.ckpt = {"train_args": {"imgsz": image_size, "task": yolo.task}}
    yolo.save(path)
    return path


def ultralytics_classification(checkpoint: Path, video: Path) -> tuple[np.ndarray, np.ndarray]:
    """What Ultralytics computes for each frame of a video: the input of its last layer, and class probabilities."""
    import_ultralytics()
    from ultralytics import YOLO

    yolo = YOLO(str(checkpoint))
    yolo.predict(np.zeros((64, 64, 3), np.uint8), verbose=False)  # makes the fused copy that the hook is to see
    features: list[np.ndarray] = []
    head = yolo.predictor.model.model.model[-1]
    hook = head.linear.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0][0].numpy().copy()))
    probs = [result.probs.data.numpy().copy() for result in yolo.predict(str(video), stream=True, verbose=False)]
    hook.remove()
    return np.stack(features), np.stack(probs)


def ultralytics_embedding(checkpoint: Path, video: Path) -> np.ndarray:
    """What Ultralytics' `embed` gives for each frame of a video: the pooled output of the layer before the head."""
    import_ultralytics()
    from ultralytics import YOLO

    yolo = YOLO(str(checkpoint))
    layer = len(yolo.model.model) - 2
    results = yolo.predict(str(video), stream=True, verbose=False, embed=[layer])
    return np.stack([embedding.numpy() for embedding in results])


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine similarity of the rows of two arrays: [num_rows]."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def write_timm_weights(model_root: Path, name: str) -> None:
    """Writes seeded random weights of a model of timm into a MODEL_ROOT."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False)
    with torch.no_grad():
        for weights in model.parameters():  # new networks of tokens see almost nothing
            if weights.ndim > 1:
                weights.copy_(torch.randn_like(weights) * (2 / weights[0].numel()) ** 0.5)
    model_root.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), model_root / f"{name}.safetensors")


def save_classifier(path: Path, names: dict[int, str]) -> None:
    """A yolov8n-cls of those classes, with seeded weights that make it sure of itself."""
    import_ultralytics()
    import ultralytics
    from ultralytics.nn.tasks import ClassificationModel

    torch.manual_seed(0)
    yolo = ultralytics.YOLO("yolov8n-cls.yaml")
    network = ClassificationModel("yolov8n-cls.yaml", nc=len(names), verbose=False)
    network.names, network.task, network.args = names, "classify", {"imgsz": 224, "task": "classify"}
    with torch.no_grad():
        network.model[-1].linear.weight *= 2000
    yolo.model = network
    path.parent.mkdir(parents=True, exist_ok=True)
    yolo.save(path)
