"""Greedy continuation of float32 Llamas on a CPU: the same sums as transformers', laid out for speed.

What it saves, in the order of what it gains: products with weights packed once for the machine, with
SiLU, the gate and the residual added in the product's own pass; a static cache; rotations as one complex
product; norms' gains and the softmax's scale folded into the weights that follow; and, in the last layer
of the prompt, no work for positions that nobody reads. Python is paid a batch and token, not a sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, rms_norm, scaled_dot_product_attention
from transformers import LlamaForCausalLM

PROMPT_TOKENS = 4096
"""Tokens of prompts in one pass: larger outputs are fetched from the system anew for every product."""
CACHE_BYTES = 2**30
MOST, FEWEST = 512, 16
ROPES = ("default", "linear", "llama3")
"""Rotations whose angles do not depend on the length of the sequence."""
WINDOWS = ("sliding_window", "attention_chunk_size", "layer_types")
"""Keys that make transformers' cache forget what is far back."""

PARTS = (nn.Linear, nn.Embedding)
"""What a weight may lie in; what is derived from them may do more with it than multiply."""

PACKS: bool = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this build of torch has the products; Macs' have not, and torch promises them to nobody."""
if PACKS:
    _linear: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default
    _linear_with: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.binary


class Packed:
    """One weight [out, in], packed for this machine's product; x is [rows, in]."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), MOST)

    def plain(self, x: Tensor) -> Tensor:
        """x W'."""
        return _linear(x, self._weight, None, "none", [], "")

    def silu(self, x: Tensor) -> Tensor:
        """silu(x W')."""
        return _linear(x, self._weight, None, "swish", [], "")

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(x W') * other."""
        return _linear_with(x, other, self._weight, None, "mul")

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """(x W') + other."""
        return _linear_with(x, other, self._weight, None, "add")


class Layer(NamedTuple):
    """The products of one layer; `first` makes queries, keys and values."""

    first: Packed
    out: Packed
    gate: Packed
    up: Packed
    down: Packed


def fits(model: Any, dtype: str, device: torch.device) -> bool:
    """Whether `Llama` computes what this model does; code that a checkpoint brings may call itself llama too."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return bool(
        type(model) is LlamaForCausalLM
        and dtype == "float32"
        and device.type == "cpu"
        and PACKS
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
        and getattr(config, "is_causal", True)
        and not any(getattr(config, name, None) for name in WINDOWS)
        and all(type(part) in PARTS for part in model.modules() if isinstance(part, nn.Linear | nn.Embedding))
        and getattr(config, "quantization_config", None) is None
        and rope.get("rope_type", "default") in ROPES
        and rope.get("partial_rotary_factor", 1.0) == 1.0
    )


class Cache:
    """Memory for keys and values, kept from call to call and from model to model: fresh pages cost time."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def room(self, layers: int, heads: int, width: int, length: int, rows: int) -> Tensor:
        """[keys and values, layers, batch, heads, length, width]: a batch of `rows`, or of as many as fit."""
        each = 2 * layers * heads * length * width
        batch = min(rows, max(FEWEST, min(MOST, CACHE_BYTES // (4 * each))))
        if self._memory.numel() < batch * each:
            self._memory = torch.empty(0)  # give back before asking for more
            self._memory = torch.empty(batch * each)
        return self._memory[: batch * each].view(2, layers, batch, heads, length, width)


class Llama:
    """The weights of a transformers Llama, rearranged."""

    def __init__(self, model: Any, cache: Cache | None = None) -> None:
        config = model.config
        self.heads, self.shared = config.num_attention_heads, config.num_key_value_heads
        self.width = model.model.layers[0].self_attn.head_dim
        self._eps, self._hidden = config.rms_norm_eps, (config.hidden_size,)
        self._embedding = model.model.embed_tokens.weight.detach()
        self._rotary = model.model.rotary_emb
        self._layers = [self._layer(layer) for layer in model.model.layers]
        self._head = Packed(model.lm_head.weight * model.model.norm.weight)
        self._cache = cache or Cache()

    def _layer(self, layer: Any) -> Layer:
        attention, mlp, width = layer.self_attn, layer.mlp, self.width
        # Halves of a head turn with one another; side by side they are complex numbers.
        pairs = torch.arange(width).view(2, -1).t().reshape(-1)
        query, key = (
            weight.view(-1, width, weight.shape[1])[:, pairs].reshape(weight.shape)
            for weight in (attention.q_proj.weight * width**-0.5, attention.k_proj.weight)
        )
        first = torch.cat([query, key, attention.v_proj.weight]) * layer.input_layernorm.weight
        gain = layer.post_attention_layernorm.weight
        return Layer(
            Packed(first),
            Packed(attention.o_proj.weight),
            Packed(mlp.gate_proj.weight * gain),
            Packed(mlp.up_proj.weight * gain),
            Packed(mlp.down_proj.weight),
        )

    def generate(self, ids: Tensor, n: int) -> Tensor:
        """Greedy continuation: ids [rows, k] -> [rows, n], in batches that fit the cache."""
        rows, k = ids.shape
        chosen = torch.empty((rows, n), dtype=torch.int64)
        if not rows or not n:
            return chosen
        batch = self._reserve(rows, k + n)
        step = max(1, PROMPT_TOKENS // k)
        for start in range(0, rows, batch):
            out = chosen[start : start + batch]
            for row in range(0, len(out), step):
                part = ids[start + row : start + min(row + step, len(out))]
                out[row : row + len(part), 0] = self._prompt(part, row)
            for i in range(1, n):
                out[:, i] = self._token(out[:, i - 1], k + i - 1)
        return chosen

    def _reserve(self, rows: int, length: int) -> int:
        """Make room for sequences of `length` ids; returns how many at a time."""
        self._keys, self._values = self._cache.room(len(self._layers), self.shared, self.width, length, rows)
        self._queries = torch.empty(self._keys.shape[1], self.heads, self.width)
        cos, sin = self._rotary(self._queries, torch.arange(length)[None])
        half = self.width // 2
        self._turn = torch.complex(cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous())
        return len(self._queries)

    def _prompt(self, ids: Tensor, row: int) -> Tensor:
        """[rows] the ids that follow prompts [rows, k]; their keys and values go to the cache from `row`."""
        (rows, k), shared, width = ids.shape, self.shared, self.width
        x = embedding(ids.reshape(-1), self._embedding)  # refuses ids below 0, which an index would not
        both = self.heads + shared
        for i, layer in enumerate(self._layers):
            first = layer.first.plain(self._norm(x)).view(rows, k, both + shared, width)
            turned = _real(_complex(first[:, :, :both]) * self._turn[:k, None])
            keys, values = (cache[i, row : row + rows, :, :k] for cache in (self._keys, self._values))
            keys.copy_(turned[:, :, self.heads :].transpose(1, 2))
            values.copy_(first[:, :, both:].transpose(1, 2))
            query = turned[:, :, : self.heads]
            if i == len(self._layers) - 1:  # only the last position is read
                query = query[:, -1].reshape(rows, shared, -1, width)
                seen = scaled_dot_product_attention(query, keys, values, scale=1.0)
                x = x.view(rows, k, -1)[:, -1].contiguous()
            else:
                query = query.transpose(1, 2)
                grouped = self.heads != shared
                options: dict[str, Any] = {"is_causal": True, "scale": 1.0, "enable_gqa": grouped}
                seen = scaled_dot_product_attention(query, keys, values, **options).transpose(1, 2)
            x = self._rest(layer, x, seen.reshape(len(x), -1))
        return self._choose(x)

    def _token(self, ids: Tensor, position: int) -> Tensor:
        """[rows] the ids that follow `ids` [rows] at `position`."""
        rows, shared, width = len(ids), self.shared, self.width
        both, upto = self.heads + shared, position + 1
        x, turn = self._embedding[ids], self._turn[position]
        queries = self._queries[:rows]
        for i, layer in enumerate(self._layers):
            first = layer.first.plain(self._norm(x)).view(rows, both + shared, width)
            keys, values = self._keys[i, :rows], self._values[i, :rows]
            torch.mul(_complex(first[:, : self.heads]), turn, out=_complex(queries))
            torch.mul(_complex(first[:, self.heads : both]), turn, out=_complex(keys[:, :, position]))
            values[:, :, position] = first[:, both:]
            keys, values = keys.flatten(0, 1)[:, :upto], values.flatten(0, 1)[:, :upto]
            weights = torch.bmm(queries.view(rows * shared, -1, width), keys.transpose(1, 2))
            seen = torch.bmm(torch.softmax(weights, dim=-1), values)
            x = self._rest(layer, x, seen.view(rows, -1))
        return self._choose(x)

    def _rest(self, layer: Layer, x: Tensor, seen: Tensor) -> Tensor:
        """What follows attention: its projection, the residual, the MLP."""
        x = layer.out.plus(seen, x)
        normed = self._norm(x)
        return layer.down.plus(layer.up.times(normed, layer.gate.silu(normed)), x)

    def _norm(self, x: Tensor) -> Tensor:
        return rms_norm(x, self._hidden, None, self._eps)

    def _choose(self, x: Tensor) -> Tensor:
        return self._head.plain(self._norm(x)).argmax(dim=-1)


def _complex(x: Tensor) -> Tensor:
    """[..., width] -> complex [..., width / 2], the same memory."""
    return torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))


def _real(x: Tensor) -> Tensor:
    """The inverse of `_complex`."""
    return torch.view_as_real(x).flatten(-2)
