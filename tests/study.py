"""What the tests of the study share: a tiny model with experts, random samples, planted tables."""
from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from s4d.models import create

NAMES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")


def tiny(num_experts: int = 4):
    """A model of 2 blocks whose experts were moved away from zero, so that routing matters."""
    torch.manual_seed(0)
    model = create("s4d_nano_patch16_64", img_size=32, num_frames=4, embed_dim=32, depth=2,
                   num_heads=2, stem_dim=8, num_experts=num_experts).eval()
    for layer in model.moae_layers().values():
        torch.nn.init.normal_(layer.w2, std=0.3)
        torch.nn.init.normal_(layer.router.weight, std=1.0)
    return model


def pictures(n: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)


def clips(n: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, 4, 32, 32), generator=generator, dtype=torch.uint8)


def labelled(n: int, subjects: int = 6) -> pd.DataFrame:
    return pd.DataFrame(dict(path=[f"{i}.jpg" for i in range(n)],
                             label=[NAMES[i % 7] for i in range(n)],
                             subject=[f"s{i % subjects}" for i in range(n)]))


def curves(follow: bool) -> pd.DataFrame:
    """Frames of 12 clips around an apex; the photo head follows the intensity or does not."""
    rng, out = np.random.default_rng(0), []
    for c in range(12):
        apex, t = 4 + c % 5, np.arange(14)
        intensity = np.exp(-0.5 * ((t - apex) / 2) ** 2)
        probability = 0.2 + 0.6 * intensity if follow else rng.random(14)
        out.append(pd.DataFrame(dict(
            path=f"{c}.mp4", label=NAMES[1 + c % 2], subject=f"s{c % 6}", frame=t, apex=apex,
            probability=probability, intensity=intensity)))
    return pd.concat(out, ignore_index=True)


def answers(right: dict[str, float], seeds: int = 2, subjects: int = 20,
            seed: int = 0) -> pd.DataFrame:
    """Predictions with a given recall of every emotion: three samples of each a subject."""
    index = pd.MultiIndex.from_product([range(seeds), range(subjects), range(7), range(3)],
                                       names=["seed", "person", "k", "i"])
    rows = index.to_frame(index=False)
    rows["label"] = [NAMES[k] for k in rows.k]
    rows["path"] = rows.person.astype(str) + rows.label + rows.i.astype(str)
    hit = np.random.default_rng(seed).random(len(rows)) < rows.label.map(right)
    wrong = [NAMES[(k + 1) % 7] for k in rows.k]
    rows["predicted"] = rows.label.where(hit, wrong)
    return rows.assign(subject="s" + rows.person.astype(str))
