"""Makes `torch_outputs.npz`: two small PyTorch models in float64, their state dicts, inputs and outputs. Needs torch; run by hand.

    python tests/make_torch_outputs.py tests/torch_outputs.npz
"""

import sys

import numpy as np
import torch
from torch import nn


class Images(nn.Module):
    """A convolution with stride, one in groups, a norm over groups, and a linear head on flattened maps (channels first)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.layers = nn.ModuleList([nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False), nn.GroupNorm(3, 6)])
        self.head = nn.Sequential(nn.Linear(6 * 2 * 3, 5), nn.GELU(), nn.Linear(5, 3))

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        for layer in self.layers:
            x = layer(x)
        return self.head(torch.flatten(torch.tanh(x), 1))


class Tokens(nn.Module):
    """An embedding with learned positions, a linear layer as wide as it is high, and a norm."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.positions = nn.Parameter(torch.randn(5, 4))
        self.mix = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, tokens):
        return self.norm(self.mix(self.embedding(tokens) + self.positions)).mean(1)


def main(path: str) -> None:
    torch.manual_seed(0)
    given = {"images": (Images().double(), torch.randn(4, 2, 5, 7).double()), "tokens": (Tokens().double(), torch.randint(0, 7, (3, 5)))}
    arrays = {}
    for name, (model, inputs) in given.items():
        for parameter in model.parameters():  # norms begin with ones and zeros, which any order of theirs would do for
            nn.init.normal_(parameter, std=0.5)
        arrays |= {f"{name}/state/{key}": value.numpy() for key, value in model.state_dict().items()}
        arrays |= {f"{name}/inputs": inputs.numpy(), f"{name}/outputs": model(inputs).detach().numpy()}
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
