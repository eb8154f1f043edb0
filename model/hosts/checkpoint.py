"""Public ImageNet checkpoints onto our modules: read safely, renamed by the family, and held to the module's keys."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

State = dict[str, Tensor]
_WRAPPERS = ("state_dict", "model", "model_state")


def read_checkpoint(path: Path) -> State:
    """A state dict, taken out of the wrapper it may lie in. Raises FileNotFoundError, ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as exc:
        reason = next(iter(str(exc).splitlines()), type(exc).__name__)
        raise ValueError(f"{path} is not a checkpoint of tensors: {reason}") from exc
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a dict of tensors, got {type(state).__name__}")
    # "module.": as DistributedDataParallel names what it wraps
    return {str(key).removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}


def load_checkpoint(module: nn.Module, path: Path, what: str, public_name: Callable[[str], str] = str) -> None:
    """`read_checkpoint`, then `fill`."""
    fill(module, read_checkpoint(path), path, what, public_name)


def fill(module: nn.Module, state: State, path: Path, what: str, public_name: Callable[[str], str] = str) -> None:
    """Give `module` its tensors from `state`; `public_name` tells what the checkpoint calls the module's key.

    Keys that the module has no use for (a classifier) are left. ValueError names the file, the first key that is
    missing or of another shape, and `what` was expected.
    """
    wanted = module.state_dict()
    names = {key: public_name(key) for key in wanted}
    missing = [name for key, name in names.items() if name not in state and not _is_counter(key)]
    if missing:
        raise ValueError(f"{path} is not {what}: it lacks {missing[0]!r} and {len(missing) - 1} more")
    found = {key: state.get(name, wanted[key]) for key, name in names.items()}
    for key, value in found.items():
        if value.shape != wanted[key].shape:
            shapes = f"{tuple(value.shape)}, expected {tuple(wanted[key].shape)}"
            raise ValueError(f"{path} is not {what}: {names[key]!r} is {shapes}")
    module.load_state_dict(found)


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")  # converted checkpoints often leave them out
