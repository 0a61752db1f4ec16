"""Small tensor functions that everything is drawn with: ramps, bells, windows, layers, look-up."""
from functools import lru_cache

import torch
import torch.nn.functional as F

LOG2E = 1.442695
# Half head heights, as all lengths here: extent of the tables, half depth of the head.
X0, X1, Y0, Y1, DEPTH = -.92, .92, -1.5, 1.15, .80


def window(value, stride=1, shape=None):
    """Find the smallest index `[..., rows, columns]` that holds every positive pixel, or None.

    Of every stride-th pixel of a map `shape` (H, W): as an index of that map, a little wider.
    """
    mask = value.amax(0) > 0
    places = [mask.any(d).nonzero()[:, 0].tolist() for d in (1, 0)]
    if not places[0]:
        return None
    return ..., *(slice(max(0, stride * (v[0] - 1) + 1), min(stride * (v[-1] + 1), size))
                  for v, size in zip(places, shape or mask.shape, strict=True))


def part(x, y, x_range, y_range):
    """Find the window of a table that covers a range of coordinates: its index, columns, rows."""
    width, height = x.shape[-1], y.shape[-2]
    rows = slice(*(int((v - Y0) / (Y1 - Y0) * height) for v in y_range))
    columns = slice(*(int((v - X0) / (X1 - X0) * width) for v in x_range))
    return (..., rows, columns), x[..., columns], y[:, rows]


def unit(v):
    """Scale vectors along axis 1 to length 1."""
    x, y, z = v[:, :1], v[:, 1:2], v[:, 2:]
    return v * (x * x).addcmul_(y, y).addcmul_(z, z).clamp_(min=1e-8).rsqrt_()


def step(x):
    """1 where x > 0, else 0, in place. A `lerp` by it is faster than `where` on the CPU."""
    return x.mul_(1e30).clamp_(0, 1)


def ramp(x, w):
    """Anti-aliased step: 0 to 1 across a width w around 0."""
    return (x / w).add_(.5).clamp_(0, 1)


def smooth(x, a, b):
    """Smoothstep from 0 at a to 1 at b; a may be the larger one."""
    t = ((x - a) / (b - a) if torch.is_tensor(b) else (x - a).mul_(1 / (b - a))).clamp_(0, 1)
    return torch.mul(t, -2).add_(3).mul_(t).mul_(t)


def gauss(x, s):
    """exp(-(x / s)^2), by powers of two: `exp` is many times slower where the result underflows."""
    if torch.is_tensor(s):
        x = x / s
        return (x * x).mul_(-LOG2E).exp2_()
    return (x * x).mul_(-LOG2E / (s * s)).exp2_()


def bell(x, sx, y, sy):
    """exp(-(x / sx)^2 - (y / sy)^2) for numbers sx, sy; overwrites y if x and y have one shape."""
    return y.mul_(1 / sy).square_().addcmul_(x, x, value=1 / (sx * sx)).mul_(-LOG2E).exp2_()


def power(x, p):
    """x^p for x > 0, faster than `pow`."""
    return x.log2().mul_(p).exp2_()


def lay(colours, layer, alpha):
    """Lay a layer over colours `[n, 3, H, W]` with opacity `[n, H, W]`, in place."""
    colours.lerp_(layer, alpha[:, None])


@lru_cache
def tint(*c):
    """A fixed colour, linear light, ready to broadcast."""
    return torch.tensor(c).view(1, 3, 1, 1)


def frontal(x, y, x0=X0 + X1, y0=Y0 + Y1):
    """Head coordinates as places of `grid_sample` `[n, H, W, 2]`; x0 = y0 = 0: as directions."""
    places = [(x - .5 * x0) * (2 / (X1 - X0)), (y - .5 * y0) * (2 / (Y1 - Y0))]
    return torch.stack(places, 1).permute(0, 2, 3, 1)


def lookup(table, x, y):
    """Read tables `[n, c, rows, columns]` at head coordinates: `[n, c, H, W]`."""
    return F.grid_sample(table, frontal(x, y), align_corners=True, padding_mode="border")
