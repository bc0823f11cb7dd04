"""Weights of a checkpoint: read as data by transformers, never executed, checked before use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from analysis360.errors import CheckpointError
from analysis360.series import Checkpoint

# Keys of a config that say how a file was made or how text is sampled, not what the model computes.
VOLATILE = {"architectures", "transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache"}
VOLATILE |= {"bos_token_id", "eos_token_id", "pad_token_id"}


def load_config(checkpoint: Checkpoint) -> Any:
    """The checkpoint's transformers config. Raises CheckpointError.

    Code that the checkpoint brings is run only where the user trusts it by name.
    """
    if checkpoint.wants_code and not checkpoint.trusted:  # reads the config: the plain errors first
        raise CheckpointError(
            f"checkpoint {checkpoint.name}: its model is code in {checkpoint.place.where}, which is not run; "
            "read that code, then give --trust-remote-code"
        )
    try:
        return AutoConfig.from_pretrained(
            checkpoint.path, local_files_only=True, trust_remote_code=checkpoint.trusted
        )
    except Exception as error:  # transformers lets many kinds through; each means the same to the reader
        raise CheckpointError(
            f"checkpoint {checkpoint.name}: config.json fits no model: {one_line(error)}"
        ) from None


def check_same_model(checkpoint: Checkpoint, config: Any, first: Checkpoint, first_config: Any) -> None:
    """All checkpoints of a series share one architecture. Raises CheckpointError naming the key."""
    ours, theirs = config.to_dict(), first_config.to_dict()
    for key in sorted((ours.keys() | theirs.keys()) - VOLATILE):
        if ours.get(key) != theirs.get(key):
            raise CheckpointError(
                f"checkpoint {checkpoint.name}: config has {key} = {ours.get(key)!r}; "
                f"{first.name} has {theirs.get(key)!r}: not the same model"
            )


def load_model(checkpoint: Checkpoint, config: Any, dtype: str, spare: Any = None) -> tuple[Any, bool]:
    """The model in `dtype`, every tensor accounted for and finite. Raises CheckpointError.

    A `spare` one, `emptied`, is filled where the files hold just what it lacks. Also returned: whether the
    model's weights are its files' tensors as they are, so that it can be a spare one.
    """
    where = f"checkpoint {checkpoint.name} ({checkpoint.path})"
    found = _mapped(checkpoint.weight_files, where)
    if spare is not None and _kinds(found) == _kinds(dict(spare.named_parameters())):
        for name, parameter in spare.named_parameters():
            parameter.data = found[name]
        _check_finite(spare, where, dtype)
        return spare, True
    model = _built(checkpoint, config, dtype, where)
    _check_finite(model, where, dtype)
    weights = dict(model.named_parameters())
    same = not checkpoint.trusted and _kinds(found) == _kinds(weights)
    return model, same and all(weights[name].equal(found[name]) for name in found)


def emptied(model: Any) -> Any:
    """The model without its weights; their names, shapes and dtypes stay."""
    for parameter in model.parameters():
        parameter.data = parameter.new_empty(()).expand(parameter.shape)
    return model


def _kinds(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _built(checkpoint: Checkpoint, config: Any, dtype: str, where: str) -> Any:
    """transformers reads safetensors, or pickles with `weights_only`, and knows the renamed, tied and
    derived tensors of each architecture."""
    files = checkpoint.weight_files
    names = files[0].name + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    try:
        transformers.logging.disable_progress_bar()
        model, info = AutoModelForCausalLM.from_pretrained(
            checkpoint.path,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=files[0].suffix == ".safetensors",
            weights_only=True,
            ignore_mismatched_sizes=True,  # they are in `info`, by name
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=checkpoint.trusted,
        )
    except Exception as error:  # a truncated, foreign or hostile file raises many kinds
        raise CheckpointError(f"{where}: {names} cannot be read as weights: {one_line(error)}") from None
    for name, found, expected in sorted(info["mismatched_keys"]):
        raise CheckpointError(
            f"{where}: tensor {name} is {list(found)}; the config asks for {list(expected)}"
        )
    for name in sorted(info["missing_keys"]):
        raise CheckpointError(
            f"{where}: tensor {name} is missing from {names}; fetch or save the checkpoint again"
        )
    for name in sorted(info["unexpected_keys"]):
        raise CheckpointError(f"{where}: tensor {name} is not part of the model {config.model_type}")
    for module in model.modules():
        module.do_not_compile = True  # where vLLM is in the process, it decorates classes that it runs itself
    return model


def _mapped(files: list[Path], where: str) -> dict[str, torch.Tensor]:
    """The tensors of every safetensors shard, not read yet; a truncated one fails here, where it has a name."""
    found: dict[str, torch.Tensor] = {}
    for file in files:
        if file.suffix == ".safetensors":
            try:
                found |= load_file(file)
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{where}: {file.name} cannot be read: {one_line(error)}") from None
    return found


def _check_finite(model: Any, where: str, dtype: str) -> None:
    tensors = {tensor: name for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
    for tensor, name in tensors.items():  # tied ones once
        # a sum, one pass and no copy, is finite only where every value is; a large one may overflow too
        if tensor.is_floating_point() and not bool(tensor.sum().isfinite() or tensor.isfinite().all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise CheckpointError(f"{where}: tensor {name} holds {bad} values that are not finite in {dtype}")


def one_line(error: Exception) -> str:
    """The first line of an error's message that says something, or its kind."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
