"""Around the face: background, neck and clothes, ears, glasses, an occluder."""
from __future__ import annotations

from types import SimpleNamespace

import torch

from .rays import DEPTH, quadric, reach
from .shading import light
from .shapes import at, gauss, lay, over, ramp, rgb, smooth, tint, unit

EAR = (.085, .20, .13)                 # half axes


def background(scene, blobs, S):
    """A vertical gradient, mottled where the scene asks for it."""
    colours = scene["bg"]
    n, device = len(colours), colours.device
    down = ((torch.arange(S, device=device) + .5) / S).view(1, 1, S, 1)
    img = torch.lerp(rgb(colours[:, 0]), rgb(colours[:, 1]), down).expand(n, 3, S, S)
    if blobs is not None:
        img = (img * (1 + .45 * scene["bg_tex"].view(-1, 1, 1, 1) * blobs)).clamp(0, 1)
    return img.contiguous()


def triple(like, *values):
    """Three numbers as maps `[n, 1, 1]`; tensors stay as they are."""
    return [v if torch.is_tensor(v) else torch.full_like(like, v) for v in values]


def neck(img, C, scene, lamp, rays):
    """Lay neck and clothes over the picture, in place."""
    P = C.maps
    chin = -P.face_length - .25 * P.jaw

    def shade(y):
        return .30 + .70 * smooth(y, chin + .05, chin - .42)
    turned = .075 * scene["yaw"].sin().view(-1, 1, 1)
    ellipsoid(img, lamp, rays, triple(chin, turned, -1.1, -.16),
              triple(chin, P.neck_width, 1.2, .45), rgb(C.skin) * .95, shade)
    ellipsoid(img, lamp, rays, triple(chin, 0., -2.18, -.28),
              triple(chin, 1.42, .74, .62), rgb(C.cloth), torch.ones_like)


def ellipsoid(img, lamp, rays, centre, axes, alb, shade):
    """Lay an ellipsoid fixed to the camera over the picture, in place."""
    box = reach(rays.camera_origin, rays.camera, centre, axes, 1 + 1.5 * rays.px)
    if not box:
        return
    d = [at(v, box) for v in rays.camera]
    t, _, m = quadric(rays.camera_origin, d, centre, axes)
    place = [a + t * b for a, b in zip(rays.camera_origin, d, strict=True)]
    normal = unit(torch.stack([(q - c) / e ** 2
                               for q, c, e in zip(place, centre, axes, strict=True)], 1))
    normal = torch.einsum("nij,nihw->njhw", rays.turn, normal)
    colour, _ = light(lamp, normal, alb, shade(place[1]))
    lay(at(img, box), colour, ramp((1 - m) * .45, rays.px * 1.3))


def ears(img, C, lamp, rays, hit, cover, wig):
    """Lay both ears over the picture, in place, hidden by nearer head or hair."""
    P, px = C.maps, rays.px
    size = P.ear_size
    for side in (1., -1.):
        centre = triple(size, side * (P.face_width + .055), -.06, -.08)
        axes = [a * size for a in EAR]
        box = reach(rays.head_origin, rays.head, centre, axes, 1 + 6.5 * px)
        if not box:
            continue
        d = [at(v, box) for v in rays.head]
        t, _, m = quadric(rays.head_origin, d, centre, axes)
        x, y, z = (a + t * b for a, b in zip(rays.head_origin, d, strict=True))
        slope = ((x - centre[0]) / EAR[0] ** 2, (y + .06) / EAR[1] ** 2, (z + .08) / EAR[2] ** 2)
        inner = gauss((x - centre[0]) * side + .005, .04) * gauss(y + .04, .11)
        skin = rgb(C.skin) * tint(x.device, .98, .84, .82)
        colour, _ = light(lamp, unit(torch.stack(slope, 1)), skin, .85 - .5 * inner)
        seen = 1 - at(cover, box) * (at(hit, box) < t).float()
        if wig is not None:
            hidden = (at(wig.near_all, box) < t + .05) & (P.hair_long > .3)
            seen = seen * (1 - at(wig.front_all, box) * hidden.float())
        lay(at(img, box), colour, ramp((1 - m) * .1, px * 1.3) * seen)


def temples(colour, C, p, lit):
    """Lay the side pieces of the glasses over the head's colours, in place."""
    P = C.maps
    side = P.eye_spacing + P.glasses_size * .95
    bar = ramp(.014 - (p.y - .04).abs(), p.px * 1.15)
    bar = bar * smooth(p.ax, side, side + .1 * P.glasses_size)
    lay(colour, rgb(C.glasses_rgb) * lit, bar * (P.glasses > 0).float())


def lens(P, rays):
    """The glasses' curved sheet: coordinates about each lens, rim and bridge `[n, S, S]`."""
    o, d, size = rays.head_origin, rays.head, P.glasses_size
    z = DEPTH + .09
    t = (z - o[2]) / d[2]
    t = (z - .38 * (o[0] + t * d[0]) ** 2 - o[2]) / d[2]
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    u, v = (x.abs() - P.eye_spacing - .005) / size, (y + .015) / (size * .80)
    radius = (u ** 4 + v ** 4).clamp_(min=1e-6).sqrt().sqrt()
    aa = rays.px * 1.15
    rim = ramp(.013 + .008 * P.glasses - (radius - 1).abs() * size, aa)
    bridge = ramp(.012 - (y - .03 - .02 * (1 - (x / .1) ** 2)).abs(), aa)
    bridge = bridge * (x.abs() < P.eye_spacing - size).float()
    return SimpleNamespace(u=u, v=v, radius=radius, frame=torch.maximum(rim, bridge))


def glasses(img, C, lamp, rays, lit, cover, box):
    """Lay the glasses over the picture, in place: tinted lenses, frame, a faint reflection."""
    P, part, aa = C.maps, at(img, box), rays.px * 1.15
    g = SimpleNamespace(**{k: at(v, box) for k, v in vars(lens(P, rays)).items()})
    worn = (P.glasses > 0).float()
    lay(part, part * .93 + .012, worn * ramp((1 - g.radius) * P.glasses_size, aa) * at(cover, box))
    lay(part, rgb(C.glasses_rgb) * lit * .9 + .01, (g.frame * worn).clamp_(0, 1))
    glare = gauss(g.u + g.v * .6 - .35, .22) * (g.radius < .93).float() * worn * .05
    part += glare[:, None] * lamp.key


def occluder(img, C, scene, lamp):
    """A soft capsule in the colour of skin (a hand) or cloth, in front of everything."""
    S = img.shape[-1]
    x, y, angle, width, present = scene["occluder"][..., None, None].unbind(1)
    p = ((torch.arange(S, device=img.device) + .5) / S * 2 - 1) * 1.15
    qx, qy = p.view(1, 1, S) - x, -p.view(1, S, 1) - y
    along = qx * angle.cos() + qy * angle.sin()
    across = -qx * angle.sin() + qy * angle.cos()
    distance = ((along.abs() - .4).clamp_(min=0) ** 2 + across ** 2).sqrt() / width
    colour = torch.where(angle[..., 0] > 1.5, C.skin, C.cloth)
    shade = lamp.ambient * .5 + lamp.key * .6 * (1 - .5 * distance.clamp(0, 1) ** 2)[:, None]
    return over(img, rgb(colour) * shade, ramp(1 - distance, .12) * present)
