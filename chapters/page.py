"""The page of chapter 00: a whole masked diffusion model, trained and used in under a minute."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from sedd_mini.text.synthetic import SyntheticLanguage

torch.manual_seed(0)
language = SyntheticLanguage()
words = language.tokenizer()  # 40 words, and each word is one token
N, L, B, D, HEADS = words.vocab_size, 32, 32, 64, 4
MASK = N  # one more token, for "hidden"


def rotate(x):
    """Turn the pairs of x (B, HEADS, L, D/HEADS) by angles that grow with the position."""
    a, b = x.chunk(2, dim=-1)
    speed = 10_000 ** (-torch.arange(a.shape[-1]) / a.shape[-1])
    angle = torch.arange(x.shape[-2])[:, None] * speed  # (L, D/HEADS/2)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def forward(self, h):  # (B, L, D)
        q, k, v = self.qkv(self.norm1(h)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(rotate(q), rotate(k), v)  # (B, HEADS, L, D/HEADS)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm2(h))


model = nn.Sequential(  # (B, L) tokens → (B, L, N) logits: what may stand at each place?
    nn.Embedding(N + 1, D), Block(), Block(), Block(), nn.LayerNorm(D), nn.Linear(D, N)
)


def loss_of(x0):
    """Nats a word, on average over t: how hard are hidden words to guess?"""
    t = (torch.rand(1) + torch.arange(len(x0)) / len(x0)) % 1  # (B,): spread over 0 to 1
    t = t[:, None].clamp(min=1e-3)
    x = torch.where(torch.rand(x0.shape) < t, MASK, x0)  # hide a share t of the words
    surprise = F.cross_entropy(model(x).transpose(1, 2), x0, reduction="none")  # (B, L)
    return ((x == MASK) * surprise / t).mean()


def train(steps, lr=5e-3):
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    for _ in range(steps):
        loss = loss_of(language.sample(B, L))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def write(x, steps=16):
    """Fill in every MASK of x (B, L), a few at each step."""
    for t, s in pairwise(torch.linspace(1, 0, steps + 1)):
        chances = model(x).softmax(-1)  # (B, L, N)
        guess = torch.multinomial(chances.flatten(0, 1), 1).view_as(x)
        shown = torch.rand(x.shape) < (t - s) / t
        x = torch.where((x == MASK) & shown, guess, x)
    return x


def text(x):
    return [" ".join("____" if i == MASK else words.decode([i]) for i in row) for row in x.tolist()]


empty = torch.full((2, L), MASK)
before = text(write(empty))
train(steps=1200)
after = text(write(empty))
print("before:", *before, "after:", *after, sep="\n  ")

given = "some ____ ____ near a river ____ ."
gap = [MASK if word == "____" else words.encode(word)[0] for word in given.split()]
print("filled:", *text(write(torch.tensor([gap] * 4))), sep="\n  ")

test = language.sample(4096, L)
with torch.no_grad():
    bits = loss_of(test).item() / math.log(2)
truth = -language.log_prob(test).mean().item() / L / math.log(2)
print(f"{bits:.2f} bits a word; guessing costs {math.log2(N):.2f}, the truth is {truth:.2f}")
