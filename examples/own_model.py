"""Train, attack and audit a network of one's own from Python, without a store. LIMIT and EPOCHS make it a smoke run."""

import os

from torch import nn

import advmix_cli

limit, epochs = int(os.environ.get("LIMIT", "5000")), int(os.environ.get("EPOCHS", "5"))


class Net(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(1, 16, 5, 2), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(16, 32, 5, 2), nn.ReLU())
        self.head = nn.Linear(32 * 5 * 5, 10)

    def forward(self, x):
        """Images (N,1,32,32) in [0,1] to logits (N,10)."""
        return self.head(self.layer2(self.layer1(x)).flatten(1))


x, y, _ = advmix_cli.datasets("glyphs", "train", limit=limit)
test = advmix_cli.datasets("glyphs", "test", limit=200)[:2]

plain = advmix_cli.train(Net(), x, y, test=test, epochs=epochs, lr=0.02, mix="manifold", mix_stages=(0, "layer2"))
print(plain)
print(advmix_cli.evaluate(plain.model, *test, attack=("pgd", "fgsm"), eps=0.1))
print("audit:", advmix_cli.audit(plain.model, *test, eps=0.1).verdict)
