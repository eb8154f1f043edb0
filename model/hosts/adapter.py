"""A model that somebody already has, as a host: its last 1x1 convolution is taken out and becomes `classify`.

What the model then returns is what that 1x1 used to read: D. Modules without parameters that follow the 1x1 in the same
Sequential (segmentation_models_pytorch up-samples and activates there) are taken out too: scores are resized by
whoever asked for them, and up-sampling D instead would cost its channels at full size.
Context can join such a host late only: of its inside nothing is known. `SGNet(architecture, host)` does that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from model.hosts.network import AuxiliaryHeads


class AdaptedHost(nn.Module):
    """model: (B, 3, h, w) -> scores as a tensor, a dict with "out", a tuple, or an output with `.logits`.

    Takes the model over: its 1x1 is no longer in it. `classifier` names that 1x1 ("decode_head.classifier"); without it
    the last 1x1 with `classes` outputs is taken. ValueError if there is none.
    """

    def __init__(self, model: nn.Module, classes: int, classifier: str | None = None) -> None:
        super().__init__()
        self.name = classifier or find_classifier(model, classes)
        conv = _find_point(model, self.name, classes)
        _take_out(model, self.name)
        self.backbone, self.classifier = model, conv
        self.auxiliary: AuxiliaryHeads | None = None
        self.channels = self.feature_channels = conv.in_channels

    def features(self, x: Tensor) -> list[Tensor]:
        """[D]"""
        decoded = _tensor(self.backbone(x))
        if decoded.ndim != 4 or decoded.shape[1] != self.channels:
            raise ValueError(
                f"without {self.name!r} the model gives {tuple(decoded.shape)}, expected {self.channels} channels:"
                " that is not its last layer; name the one that is"
            )
        return [decoded]

    def decode(self, features: list[Tensor]) -> Tensor:
        return features[-1]

    def classify(self, decoded: Tensor) -> Tensor:
        scores: Tensor = self.classifier(decoded)
        return scores

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.decode(self.features(x)))


def find_classifier(model: nn.Module, classes: int) -> str:
    """The name of the last 1x1 convolution with `classes` outputs. Raises ValueError."""
    convs = [(name, conv) for name, conv in model.named_modules() if name and isinstance(conv, nn.Conv2d)]
    fitting: list[str] = [name for name, conv in convs if _is_point(conv, classes)]
    if not fitting:
        last = "its last convolution is {!r}, {}".format(*convs[-1]) if convs else "it has no convolution"
        raise ValueError(f"{type(model).__name__} has no 1x1 convolution with {classes} outputs: {last}")
    return fitting[-1]


def _find_point(model: nn.Module, name: str, classes: int) -> nn.Conv2d:
    try:
        module = model.get_submodule(name)
    except AttributeError as exc:
        raise ValueError(f"{type(model).__name__} has no module {name!r}") from exc
    if not isinstance(module, nn.Conv2d) or not _is_point(module, classes):
        raise ValueError(f"{name!r} is {module}: expected a 1x1 convolution with {classes} outputs")
    return module


def _is_point(conv: nn.Conv2d, classes: int) -> bool:
    return set(conv.kernel_size) == {1} and conv.groups == 1 and conv.out_channels == classes


def _take_out(model: nn.Module, name: str) -> None:
    """Put Identity in place of `name`, and of what follows it in the same Sequential without parameters."""
    path, _, leaf = name.rpartition(".")
    parent = model.get_submodule(path)
    setattr(parent, leaf, nn.Identity())
    if isinstance(parent, nn.Sequential):
        names = [child for child, _ in parent.named_children()]
        for child in names[names.index(leaf) + 1 :]:
            if next(parent.get_submodule(child).parameters(), None) is None:
                setattr(parent, child, nn.Identity())


def _tensor(output: Any) -> Tensor:
    """The scores in whatever a model returns."""
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "logits"):
        return _tensor(output.logits)
    if isinstance(output, Mapping) and "out" in output:
        return _tensor(output["out"])
    if isinstance(output, tuple | list) and output:
        return _tensor(output[0])
    raise ValueError(f"the model returns {type(output).__name__}: expected a tensor, a dict with 'out', or .logits")
