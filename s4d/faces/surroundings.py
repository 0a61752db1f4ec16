"""Around the face: neck and clothes, hair, ears, glasses, an occluder."""
from types import SimpleNamespace

import torch

from .paint import strand
from .rays import light, quadric, reach
from .shapes import DEPTH, gauss, lay, lookup, power, ramp, smooth, step, tint, unit

EAR = (.085, .20, .13)                 # half axes


def neck(img, C, scene, lamp, rays):
    """Lay neck and clothes, ellipsoids fixed to the camera, over the picture, in place."""
    P, o = C.maps, rays.camera_origin
    chin = -P.face_length - .25 * P.jaw
    turned = .075 * scene["yaw"].sin().view(-1, 1, 1)
    parts = (((turned, -1.1, -.16), (P.neck_width, 1.2, .45), C.skin * .95),
             ((0., -2.18, -.28), (1.42, .74, .62), C.cloth))
    for k, (centre, axes, alb) in enumerate(parts):
        box = reach(o, rays.camera, centre, axes, 1 + 1.5 * P.px)
        if not box:
            continue
        d = [v[box] for v in rays.camera]
        t, _, m = quadric(o, d, centre, axes)
        place, normal = outward(o, d, t, centre, axes)
        lit = torch.ones_like(m) if k else .30 + .70 * smooth(place[1], chin + .05, chin - .42)
        colour, _ = light(lamp, torch.einsum("nij,nihw->njhw", rays.turn, normal), alb, lit)
        lay(img[box], colour, ramp((1 - m) * .45, P.px * 1.3))


def outward(o, d, t, centre, axes):
    """Places at a distance along rays, and an ellipsoid's unit normals `[n, 3, H, W]` there."""
    place = [a + t * b for a, b in zip(o, d, strict=True)]
    slope = [(q - c) / e ** 2 for q, c, e in zip(place, centre, axes, strict=True)]
    return place, unit(torch.stack(slope, 1))


def hair(C, lamp, rays, tables):
    """Draw the hair shell in its window, box: what lies behind and in front of the head."""
    P, o, px = C.maps, rays.head_origin, rays.px
    long, volume = P.hair_long, P.hair_vol
    width = P.face_width + .065 + volume * .9 + .03 * long
    top = 1.05 + volume
    bottom = torch.lerp(torch.full_like(long, -.42), torch.full_like(long, -1.65), long)
    centre = (0., (top + bottom) / 2, -.10)
    axes = (width, (top - bottom) / 2, DEPTH + .02 + volume)
    box = reach(o, rays.head, centre, axes, 1 + (.10 + 4 * px) / width)
    d = [v[box] for v in rays.head]
    near, far, m = quadric(o, d, centre, axes)
    (x, y, z), normal = outward(o, d, near, centre, axes)
    angle = torch.atan2(x - .25 * P.parting * smooth(y, .2, .9), (z + .35).clamp_(min=-.3))
    strands = strand(P, angle * 1.1, y * 1.2 + z)
    base = C.hair_rgb
    dark = 1 - .25 * step(-.3 - strands)
    colour, _ = light(lamp, normal, base * (1 + .40 * strands[:, None]), dark)
    sheen = gauss(normal[:, 1] - .55 + .05 * strands, .20) * (.6 + .4 * strands) * (1 - .6 * P.curl)
    colour.addcmul_(sheen[:, None], (base * .9 + .018) * lamp.key, value=.45)
    rough = lookup(tables.skin[:, 1:], .88 * torch.sin(x * 2), y)[:, 0].clamp_(-1.3, 1.3)
    outside = (1 - m) * width + (.02 + .05 * P.curl) * (rough * .45 - .25)
    cover = ramp(outside, px * 2.0 + .02 + .03 * P.curl) * (1 - P.bald)
    back = o[1] + far * d[1] + .03 * strands
    behind = cover * smooth(back, (bottom + .45).clamp(max=-.45), (bottom + .62).clamp(max=-.30))
    edge = face_edge(P, x, y, strands)
    free = step(.12 + .1 * long - z)                            # behind the face's edge
    front = torch.maximum(ramp(edge * .5 + .010 * strands, px * 1.5 + .035), free)
    short_end = .10 - .45 * smooth(z, -.12, -.40) - .16 * smooth(z, .05, .2)
    end = torch.lerp(short_end, bottom + .38, long)
    front = cover * front * smooth(y + .03 * strands - end, -.05, .08)
    return SimpleNamespace(box=box, colour=colour, behind=behind, front=front,
                           crown=smooth(y, -.2, .3), edge=edge, near=near)


def face_edge(P, x, y, strands):
    """Signed distance to the edge of the hair around the face, negative where the face is free."""
    long, middle = P.hair_long, -.40
    height = P.hairline - P.fringe - middle
    ragged = .022 * strands + .012 * torch.sin(x * 23 + P.seed.float() % 13)
    across = (x.abs() / (P.face_width - .02 + .02 * long)).clamp_(1e-6, 3)
    slanted = y - middle + P.parting * x * .16 * (1 - .5 * long) + ragged
    along = (slanted / height).clamp_(min=1e-6)
    square = power(along, 2.4 + P.temples).add_(power(across, 3.2 + 1.5 * P.temples))
    return power(square.clamp_(min=1e-4), .35).sub_(1).mul_(.9)


def ears(img, C, lamp, rays, hit, cover, wig):
    """Lay both ears over the picture, in place, hidden by nearer head or hair."""
    P, o = C.maps, rays.head_origin
    axes, front, near = [a * P.ear_size for a in EAR], torch.zeros_like(hit), torch.zeros_like(hit)
    front[wig.box], near[wig.box] = wig.front, wig.near
    for side in (1., -1.):
        centre = (side * (P.face_width + .055), -.06, -.08)
        box = reach(o, rays.head, centre, axes, 1 + 6.5 * P.px)
        if not box:
            continue
        d = [v[box] for v in rays.head]
        t, _, m = quadric(o, d, centre, axes)
        (x, y, _), normal = outward(o, d, t, centre, EAR)
        inner = gauss((x - centre[0]) * side + .005, .04) * gauss(y + .04, .11)
        skin = C.skin * tint(.98, .84, .82)
        colour, _ = light(lamp, normal, skin, .85 - .5 * inner)
        hidden = (near[box] < t + .05) & (P.hair_long > .3)
        seen = (1 - cover[box] * (hit[box] < t).float()) * (1 - front[box] * hidden.float())
        lay(img[box], colour, ramp((1 - m) * .1, P.px * 1.3) * seen)


def glasses(img, C, lamp, rays, lit, cover, box):
    """Lay the glasses, a curved sheet, over the picture, in place: lenses, frame, a reflection."""
    P, part, aa = C.maps, img[box], C.maps.aa
    o, d, size = rays.head_origin, [v[box] for v in rays.head], P.glasses_size
    z = DEPTH + .09
    t = (z - o[2]) / d[2]
    t = (z - .38 * (o[0] + t * d[0]) ** 2 - o[2]) / d[2]
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    u, v = (x.abs() - P.eye_spacing - .005) / size, (y + .015) / (size * .80)    # about each lens
    radius = (u ** 4 + v ** 4).clamp_(min=1e-6).sqrt().sqrt()
    rim = ramp(.013 + .008 * P.glasses - (radius - 1).abs() * size, aa)
    bridge = ramp(.012 - (y - .03 - .02 * (1 - (x / .1) ** 2)).abs(), aa)
    bridge = bridge * (x.abs() < P.eye_spacing - size).float()
    worn = (P.glasses > 0).float()
    lay(part, part * .93 + .012, worn * ramp((1 - radius) * size, aa) * cover[box])
    frame = (torch.maximum(rim, bridge) * worn).clamp_(0, 1)
    lay(part, C.glasses_rgb * lit * .9 + .01, frame)
    glare = gauss(u + v * .6 - .35, .22) * (radius < .93).float() * worn * .05
    part += glare[:, None] * lamp.key


def occluder(img, C, scene, lamp):
    """Lay a soft capsule of skin (a hand) or cloth over everything, in place."""
    S = img.shape[-1]
    x, y, angle, width, present = scene["occluder"][..., None, None].unbind(1)
    p = ((torch.arange(S) + .5) / S * 2 - 1) * 1.15
    qx, qy = p.view(1, 1, S) - x, -p.view(1, S, 1) - y
    along = qx * angle.cos() + qy * angle.sin()
    across = -qx * angle.sin() + qy * angle.cos()
    distance = ((along.abs() - .4).clamp_(min=0) ** 2 + across ** 2).sqrt() / width
    colour = torch.where(angle[..., None] > 1.5, C.skin, C.cloth)
    shade = lamp.ambient * .5 + lamp.key * .6 * (1 - .5 * distance.clamp(0, 1) ** 2)[:, None]
    lay(img, colour * shade, ramp(1 - distance, .12) * present)
