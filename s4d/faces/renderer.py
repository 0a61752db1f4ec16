"""Subject x actions x scene -> pixels: geometry first, then the picture from back to front."""
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from ..config import ConfigError
from .controls import controls
from .facs import ACTIONS
from .head import head_table
from .paint import face
from .rays import camera_rays, lamp, march_head
from .shapes import LOG2E, gauss, lay, power, smooth, tint, window
from .subject import views
from .surroundings import ears, glasses, hair, neck, occluder

BATCH = {"cpu": 16, "cuda": 512}        # frames drawn at a time: 16 just fit a core's cache
DETAIL = ((72, 96, 6), (128, 144, 9), (224, 176, 9))    # img_size up to, rows of tables, ray steps


@contextmanager
def drawing(place: torch.device) -> Iterator[None]:
    """Make new tensors on the device; one thread on a CPU, whose others would only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    tint.cache_clear()                  # of colours on another device
    try:
        with nullcontext() if place.type == "cpu" else place:
            yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def render(subject: dict, actions: np.ndarray | torch.Tensor, scene: dict | None = None,
           img_size: int = 64, seed: int | torch.Generator = 0) -> torch.Tensor:
    """Draw faces, uint8 `[n, 3, img_size, img_size]`, on the device that the tables lie on.

    Args:
        subject: of `subjects`; one row serves all frames.
        actions: `[n, 2, 23]` in 0..1: left and right, in the order of `facs.ACTIONS`.
        scene: of `views`; one row serves all frames; None is a frontal view.
        seed: of the sensor's noise, or the generator that draws it.
    """
    place = subject["seed"].device
    actions = torch.as_tensor(actions, dtype=torch.float32, device=place)
    n, batch = len(actions), BATCH[place.type]
    if actions.shape[1:] != (2, len(ACTIONS)):
        raise ConfigError(f"actions of shape {list(actions.shape)}: expected "
                          f"[n, 2, {len(ACTIONS)}], left and right of each action")
    if not 32 <= img_size <= 224:
        raise ConfigError(f"img_size {img_size} px: give 32 to 224")
    tables = {"subjects": subject, "views": scene or views(1)}
    for what, table in tables.items():
        have = len(next(iter(table.values())))
        if have not in (1, n):
            raise ConfigError(f"{have} {what} for {n} frames: give 1 or {n}")
        tables[what] = {k: v.to(place).expand(n, *v.shape[1:]) for k, v in table.items()}
    gen = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    out = []
    with drawing(place):
        for i in range(0, n, batch):
            who, seen = ({k: v[i:i + batch] for k, v in t.items()} for t in tables.values())
            image = draw(who, actions[i:i + batch].clamp(0, 1), seen, img_size, gen)
            out.append((image * 255).round().to(torch.uint8))
    return torch.cat(out)


def draw(subject: dict, actions: torch.Tensor, scene: dict, img_size: int, gen) -> torch.Tensor:
    """Draw one batch: float32 `[n, 3, img_size, img_size]` in 0..1, sRGB."""
    C = controls(subject, actions, scene["gaze"])                 # where lips, lids and brows lie
    rays = camera_rays(scene, img_size)
    C.maps.px, C.maps.aa = rays.px, rays.px * 1.15                # a pixel; width of soft edges
    light = lamp(scene, rays.turn)
    rows, steps = next(detail for size, *detail in DETAIL if img_size <= size)
    surface = head_table(C, light.towards[:, 0], rows)            # the head's height and shadow
    hit, cover = march_head(surface[:, :2], rays, C, steps)       # where each ray meets it
    tables = SimpleNamespace(surface=surface, **textures(subject["seed"], img_size))
    img = picture(C, scene, light, rays, hit, cover, tables)      # shaded, painted, surrounded
    return develop(img, C, scene, gen)


def textures(seed: torch.Tensor, img_size: int) -> dict:
    """Skin noise `[n, 2, 64, 64]` and background blobs of each subject: equal in all its frames."""
    def noise(seed, c, k):                     # about standard normal: four bytes of a hash, summed
        x = seed.view(-1, 1) * 7919 + torch.arange(c * k * k) * 104729
        for m in (0x45d9f3b, 0x119de1f3):
            x = ((x ^ (x >> 16)) * m) & 0xffffffff
        x = x ^ (x >> 16)
        pairs = (x & 0xff00ff) + ((x >> 8) & 0xff00ff)                # two sums of two bytes
        total = ((pairs & 0xffff) + (pairs >> 16)).float()
        return (total.view(-1, c, k, k) - 510) * (1.732 / 256)

    def stretched(maps, size):                 # bicubic, as two matrix products
        k = maps.shape[-1]
        eye = torch.eye(k)[None, None]
        weights = F.interpolate(eye, size=(size, k), mode="bicubic", align_corners=True)[0, 0]
        return weights @ maps @ weights.T
    own, row = torch.unique(seed, return_inverse=True)
    skin = torch.cat([stretched(noise(own, 1, 9), 64), noise(own + 1, 1, 64)], 1)
    blobs = noise(own + 2, 1, 6) + .3 * noise(own + 3, 3, 6)
    return {"skin": skin[row], "blobs": stretched(blobs, img_size)[row]}


def picture(C, scene, lamp, rays, hit, cover, tables):
    """Compose the picture from back to front: linear light `[n, 3, S, S]`."""
    P, S = C.maps, hit.shape[-1]
    down = ((torch.arange(S) + .5) / S).view(1, 1, S, 1)
    img = torch.lerp(*scene["bg"][..., None, None].unbind(1), down).expand(-1, 3, S, S)
    img = (img * (1 + .45 * scene["bg_tex"].view(-1, 1, 1, 1) * tables.blobs)).clamp(0, 1)
    wig, box = hair(C, lamp, rays, tables), window(cover)
    lay(img[wig.box], wig.colour * .38, wig.behind)
    neck(img, C, scene, lamp, rays)
    colour, lit = face(C, lamp, rays, hit, tables, box)
    lay(img[box], colour, cover[box])
    part = img[wig.box]
    y = rays.head_origin[1] + hit[wig.box] * rays.head[1][wig.box]
    contact = cover[wig.box] * (1 - P.bald) * (1 - wig.front)
    contact = contact * gauss(wig.edge.clamp(max=0), .10) * smooth(y, -.1, .3)
    part *= 1 - .35 * contact[:, None]
    lay(part, wig.colour * (.75 + .25 * wig.crown)[:, None], wig.front)
    ears(img, C, lamp, rays, hit, cover, wig)
    if bool((P.glasses > 0).any()):
        glasses(img, C, lamp, rays, lit, cover, box)
    if bool((scene["occluder"][:, 4] > 0).any()):
        occluder(img, C, scene, lamp)
    return img


def develop(img, C, scene, gen):
    """Expose by the face, then tone curve, gamma, blur, noise: linear light -> sRGB 0..1."""
    meter = .86 + .75 * (C.tone[:, 0] / 9) ** 2
    exposure = (scene["exposure"] * meter * -1.25 * LOG2E).view(-1, 1, 1, 1)
    img = power((1 - (img * exposure).clamp_(max=0).exp2_()).clamp_(1e-5, 1), 1 / 2.2)
    if bool((scene["blur"] > 0).any()):
        p = F.pad(img, (2, 2, 2, 2), mode="replicate")
        for k in (3, 2):
            a, b, c, d, e = (p.narrow(k, i, p.shape[k] - 4) for i in range(5))
            p = .0625 * (a + e) + .25 * (b + d) + .375 * c
        img = torch.lerp(img, p, scene["blur"].view(-1, 1, 1, 1))
    if bool((scene["noise"] > 0).any()):
        noise = torch.randn(img.shape, generator=gen, device=gen.device).to(img.device)
        img = img + scene["noise"].view(-1, 1, 1, 1) * noise
    return img.clamp(0, 1)
