"""Light on the painted head, and what surrounds it: hair, ears, neck, clothes, glasses, occluder, background."""
from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from .head import DEPTH
from .paint import Patch, lay, mouth_interior, over, paint, rgb, strand, tint
from .shapes import LOG2E, at, gauss, lookup, power, quadric, ramp, reach, smooth, step, unit, wider, window

WRAP = (.34, .20, .15)                 # light creeps round the terminator, red the furthest
EAR = (.085, .20, .13)                # half axes


def lamp(I, scene, R, lh):
    """Colours and directions of the light, in the head frame."""
    n = lh.shape[0]
    warm, one = scene['warmth'].view(-1, 1), torch.ones_like(lh[:, :1])
    key = scene['key'].view(-1, 1) * torch.cat([1 + .12 * warm, one, 1 - .16 * warm], 1)
    ambient = scene['ambient'].view(-1, 1) * torch.cat([1 - .05 * warm, one, 1 + .08 * warm], 1)
    return SimpleNamespace(key=rgb(key), ambient=rgb(ambient), towards=lh.view(-1, 3, 1, 1), up=R[:, 1].reshape(-1, 3, 1, 1))


def dot(maps, vector):
    """Scalar products of vectors `[n, 3, H, W]` with one vector a face `[n, 1, 3]`: `[n, 1, H, W]`."""
    return torch.bmm(vector, maps.reshape(-1, 3, maps.shape[2] * maps.shape[3])).view(-1, 1, *maps.shape[2:])


def light(lamp, N, alb, occlusion, view=None, gloss=None, shadow=None):
    """Wrapped diffuse, hemisphere ambient and two specular lobes.

    Args:
        lamp: of `lamp`.
        N: unit normals `[n, 3, H, W]`.
        alb: albedo `[n, 3, H, W]`.
        occlusion, gloss, shadow: `[n, H, W]`; a surface without gloss is matt.
        view: unit directions of the rays `[n, 3, H, W]`, for gloss alone.
    Returns:
        radiance `[n, 3, H, W]` and the cosine between normal and light `[n, 1, H, W]`.
    """
    wrap = tint(N.device, *WRAP)
    towards, up = lamp.towards.view(-1, 1, 3), lamp.up.view(-1, 1, 3)
    ndl, occlusion = dot(N, towards), occlusion[:, None]
    lit = None if shadow is None else 1 - .72 * shadow[:, None]
    direct = .55 + .45 * occlusion if lit is None else (.55 + .45 * occlusion).mul_(lit)
    colour = torch.addcmul(lamp.key * (wrap / (1 + wrap)), ndl, lamp.key / (1 + wrap)).clamp_(min=0).mul_(direct)
    colour.addcmul_(dot(N, up).mul_(.38).add_(.62).mul_(occlusion), lamp.ambient).mul_(alb)
    if gloss is None:
        return colour, ndl
    facing = (N[:, :1] * view[:, :1]).addcmul_(N[:, 1:2], view[:, 1:2]).addcmul_(N[:, 2:], view[:, 2:])
    half = dot(view, towards).mul_(-2).add_(2).clamp_(min=1e-4).rsqrt_()          # 1 / |light - view|
    n2 = (ndl - facing).mul_(half).clamp_(0, 1).square_()
    n4 = n2 * n2
    n8 = n4 * n4
    n16 = n8 * n8
    lobes = n4.mul_(n2).mul_(n8).mul_(.10).addcmul_(n16 * n16, n16, value=.13).mul_(step(ndl.clone()))
    if lit is not None:
        lobes *= lit
    grazing = facing.clamp_(-1, 0).add_(1).square_()
    lobes.addcmul_(grazing, grazing, value=.05).mul_(occlusion).mul_(gloss[:, None])
    return colour.addcmul_(lobes, lamp.key), ndl


def face(C, I, lamp, rays, hit, tables, box):
    """Colours of the skin with eyes and mouth inside a window `[n, 3, h, w]`."""
    o, d = rays.head_origin, [at(v, box) for v in rays.head]
    t = at(hit, box)
    x, y, z = (a + t * b for a, b in zip(o, d))
    h, hx, hy, Gx, Gy, occ, shadow, *zone = lookup(tables.surface[:, 1:], x, y).unbind(1)
    w = z - DEPTH * h
    shadow = shadow * smooth(w, .0, .25)                     # tabulated for the front half
    w *= 1 / DEPTH ** 2
    N = unit(torch.stack([torch.addcmul(Gx, w, hx, value=-1), torch.addcmul(Gy, w, hy, value=-1), w], 1))
    noise = lookup(tables.skin, x, y)
    p = Patch(x, y, z, noise[:, 0], noise[:, 1], rays.px)
    alb, gloss, folds, eye, mouth = paint(C, I, p, zone[0] if zone else None)
    occlusion = (1 - occ - folds).clamp_(.12, 1.12)
    view = torch.stack(d, 1)
    colour, ndl = light(lamp, N, alb, occlusion, view, gloss, shadow)
    lit = ndl.clamp_(-.3, 1).add_(1).mul_(.4).mul_(1 - .5 * shadow[:, None])
    lit = torch.addcmul(.36 * lamp.ambient, lit, lamp.key)
    if eye:
        part = at(colour, eye.box)
        lay(part, eye.colour * at(lit, eye.box), eye.inside)
        lay(part, torch.minimum(rgb(I['hair_rgb']) * .15, part * .35), eye.lash)
        part.addcmul_(eye.glint[:, None], lamp.key, value=.55)
    if mouth:
        part, q = at(colour, mouth.box), p.cut(mouth.box)
        if bool((mouth.opening > 0).any()):
            ray = at(view, mouth.box)
            back = .055 / (-ray[:, 2]).clamp(min=.3)         # the interior lies behind the lips
            inner = mouth_interior(C, q.x + ray[:, 0] * back, q.y + ray[:, 1] * back, mouth, rays.px)
            lay(part, inner * at(lit, mouth.box), mouth.opening)
        lay(part, part * tint(x.device, .24, .15, .15), mouth.seam)
    return colour, lit, p


def background(scene, tables, S):
    """A vertical gradient, mottled where the scene asks for it."""
    n = scene['bg'].shape[0]
    down = ((torch.arange(S, device=scene['bg'].device) + .5) / S).view(1, 1, S, 1)
    img = torch.lerp(rgb(scene['bg'][:, 0]), rgb(scene['bg'][:, 1]), down).expand(n, 3, S, S)
    if tables.blobs is not None:
        img = (img * (1 + .45 * scene['bg_tex'].view(-1, 1, 1, 1) * tables.blobs)).clamp(0, 1)
    return img.contiguous()


def ellipsoid(img, lamp, rays, R, px, centre, axes, alb, shade):
    """Lays an ellipsoid fixed to the camera (neck, shoulders) over the picture, in place."""
    box = reach(rays.camera_origin, rays.camera, centre, axes, 1 + 1.5 * px)
    if not box:
        return
    d = [at(v, box) for v in rays.camera]
    t, _, m = quadric(rays.camera_origin, d, centre, axes)
    at_ = [a + t * b for a, b in zip(rays.camera_origin, d)]
    normal = unit(torch.stack([(q - c) / e ** 2 for q, c, e in zip(at_, centre, axes)], 1))
    normal = torch.einsum('nij,nihw->njhw', R, normal)
    colour, _ = light(lamp, normal, alb, shade(at_))
    part = at(img, box)
    lay(part, colour, ramp((1 - m) * .45, px * 1.3))


def neck(img, C, I, scene, lamp, rays, R, px):
    """Neck and clothes."""
    c = lambda a: torch.full((img.shape[0], 1, 1), float(a), device=img.device)
    chin = -C.I['face_length'] - .25 * C.jaw.view(-1, 1, 1)
    ellipsoid(img, lamp, rays, R, px, (.075 * scene['yaw'].sin().view(-1, 1, 1), c(-1.1), c(-.16)),
              (C.I['neck_width'], c(1.2), c(.45)), rgb(I['skin']) * .95, lambda p: .30 + .70 * smooth(p[1], chin + .05, chin - .42))
    ellipsoid(img, lamp, rays, R, px, (c(0), c(-2.18), c(-.28)), (c(1.42), c(.74), c(.62)), rgb(I['cloth']),
              lambda p: torch.ones_like(p[1]))


def hair(C, I, lamp, rays, tables, px):
    """The hair shell inside its window: colours, and how much of it lies behind and in front of the head. None when all are bald."""
    P = C.I
    long, vol = P['hair_long'], P['hair_vol']
    width = P['face_width'] + .065 + vol * .9 + .03 * long
    top, bottom = 1.05 + vol, torch.lerp(torch.full_like(long, -.42), torch.full_like(long, -1.65), long)
    centre, axes = (long * 0, (top + bottom) / 2, long * 0 - .10), (width, (top - bottom) / 2, DEPTH + .02 + vol)
    few = [v[..., ::4, ::4] for v in rays.head]
    near, far, m = quadric(rays.head_origin, few, centre, axes)
    y = rays.head_origin[1] + torch.maximum(near * few[1], far * few[1])
    lowest = torch.where(long > 0, bottom + .2, -.75 + long) + 9 * (P['bald'] == 1)
    box = wider(window(torch.minimum((1 - m) * width + .10 + px * 4, y - lowest + px * 4)), 4, rays.head[0].shape[1:])
    if not box:
        return None
    d = [at(v, box) for v in rays.head]
    near, far, m = quadric(rays.head_origin, d, centre, axes)
    x, y, z = (a + near * b for a, b in zip(rays.head_origin, d))
    normal = unit(torch.stack([(q - c) / e ** 2 for q, c, e in zip((x, y, z), centre, axes)], 1))
    angle = torch.atan2(x - .25 * P['part'] * smooth(y, .2, .9), (z + .35).clamp_(min=-.3))
    st = strand(C, angle * 1.1, y * 1.2 + z, px)
    base = rgb(I['hair_rgb'])
    colour, _ = light(lamp, normal, base * (1 + .40 * st[:, None]), 1 - .25 * step(-.3 - st))
    sheen = gauss(normal[:, 1] - .55 + .05 * st, .20) * (.6 + .4 * st) * (1 - .6 * P['curl'])
    colour.addcmul_(sheen[:, None], (base * .9 + .018) * lamp.key, value=.45)
    rough = lookup(tables.skin[:, 1:], .88 * torch.sin(x * 2), y)[:, 0].clamp_(-1.3, 1.3)
    cover = ramp((1 - m) * width + (.02 + .05 * P['curl']) * (rough * .45 - .25), px * 2.0 + .02 + .03 * P['curl']) * (1 - P['bald'])
    behind = cover * smooth(rays.head_origin[1] + far * d[1] + .03 * st, (bottom + .45).clamp(max=-.45), (bottom + .62).clamp(max=-.30))
    edge = opening(C, x, y, st)
    front = torch.maximum(ramp(edge * .5 + .010 * st, px * 1.5 + .035), step(.12 + .1 * long - z))
    low = torch.lerp(.10 - .45 * smooth(z, -.12, -.40) - .16 * smooth(z, .05, .2), bottom + .38, long)
    front = cover * front * smooth(y + .03 * st - low, -.05, .08)
    return SimpleNamespace(box=box, colour=colour, behind=behind, front=front, crown=smooth(y, -.2, .3), edge=edge, near=near)


def opening(C, x, y, st):
    """Signed distance to the edge of the hair around the face, negative inside the opening."""
    P = C.I
    long, middle = P['hair_long'], -.40
    height = P['hairline'] - P['fringe'] - middle
    ragged = .022 * st + .012 * torch.sin(x * 23 + P['seed'].float() % 13)
    across = (x.abs() / (P['face_width'] - .02 + .02 * long)).clamp_(1e-6, 3)
    along = ((y - middle + P['part'] * x * .16 * (1 - .5 * long) + ragged) / height).clamp_(min=1e-6)
    square = power(along, 2.4 + P['temples']).add_(power(across, 3.2 + 1.5 * P['temples']))
    return power(square.clamp_(min=1e-4), .35).sub_(1).mul_(.9)


def ears(img, C, I, lamp, rays, hit, cover, wig, px):
    """Both ears, hidden by nearer head or hair, in place."""
    P, size = C.I, C.I['ear_size']
    for side in (1., -1.):
        c = lambda a: torch.full_like(size, float(a))
        centre = (side * (P['face_width'] + .055), c(-.06), c(-.08))
        axes = tuple(a * size for a in EAR)
        box = reach(rays.head_origin, rays.head, centre, axes, 1 + 6.5 * px)
        if not box:
            continue
        d = [at(v, box) for v in rays.head]
        t, _, m = quadric(rays.head_origin, d, centre, axes)
        x, y, z = (a + t * b for a, b in zip(rays.head_origin, d))
        normal = unit(torch.stack([(x - centre[0]) / EAR[0] ** 2, (y + .06) / EAR[1] ** 2, (z + .08) / EAR[2] ** 2], 1))
        inner = gauss((x - centre[0]) * side + .005, .04) * gauss(y + .04, .11)
        skin = rgb(I['skin']) * tint(x.device, .98, .84, .82)
        colour, _ = light(lamp, normal, skin, .85 - .5 * inner)
        seen = 1 - at(cover, box) * (at(hit, box) < t).float()
        if wig is not None:
            seen = seen * (1 - at(wig.front_all, box) * ((at(wig.near_all, box) < t + .05) & (P['hair_long'] > .3)).float())
        part = at(img, box)
        lay(part, colour, ramp((1 - m) * .1, px * 1.3) * seen)


def lens(C, rays, px):
    """The glasses' curved sheet in front of the eyes: coordinates about each lens, its rim and bridge `[n, S, S]`."""
    P, o, d = C.I, rays.head_origin, rays.head
    size = P['glasses_size']
    z = DEPTH + .09
    t = (z - o[2]) / d[2]
    t = (z - .38 * (o[0] + t * d[0]) ** 2 - o[2]) / d[2]
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    u, v = (x.abs() - P['eye_spacing'] - .005) / size, (y + .015) / (size * .80)
    radius = (u ** 4 + v ** 4).clamp_(min=1e-6).sqrt().sqrt()
    aa = px * 1.15
    rim = ramp(.013 + .008 * P['glasses'] - (radius - 1).abs() * size, aa)
    bridge = ramp(.012 - (y - .03 - .02 * (1 - (x / .1) ** 2)).abs(), aa) * (x.abs() < P['eye_spacing'] - size).float()
    return SimpleNamespace(u=u, v=v, radius=radius, size=size, frame=torch.maximum(rim, bridge), aa=aa, on=(P['glasses'] > 0).float())


def spectacles(img, g, I, lamp, lit, cover, box):
    """Lays the glasses over the picture, in place: tinted lenses, frame, a faint reflection."""
    part = at(img, box)
    cut = lambda v: at(v, box)
    lay(part, part * .93 + .012, g.on * ramp((1 - cut(g.radius)) * g.size, g.aa) * cut(cover))
    lay(part, rgb(I['glasses_rgb']) * lit * .9 + .01, (cut(g.frame) * g.on).clamp_(0, 1))
    glare = gauss(cut(g.u) + cut(g.v) * .6 - .35, .22) * (cut(g.radius) < .93).float() * g.on * .05
    part += glare[:, None] * lamp.key


def occluder(img, I, scene, lamp):
    """A soft capsule in the colour of skin (a hand) or cloth, in front of everything."""
    n, S, oc = img.shape[0], img.shape[-1], scene['occluder']
    v = lambda i: oc[:, i].view(-1, 1, 1)
    p = ((torch.arange(S, device=img.device) + .5) / S * 2 - 1) * 1.15
    qx, qy = p.view(1, 1, S) - v(0), -p.view(1, S, 1) - v(1)
    along, across = qx * v(2).cos() + qy * v(2).sin(), -qx * v(2).sin() + qy * v(2).cos()
    distance = ((along.abs() - .4).clamp_(min=0) ** 2 + across ** 2).sqrt() / v(3)
    colour = torch.where(oc[:, 2:3] > 1.5, I['skin'], I['cloth'])
    shade = lamp.ambient * .5 + lamp.key * .6 * (1 - .5 * distance.clamp(0, 1) ** 2)[:, None]
    return over(img, rgb(colour) * shade, ramp(1 - distance, .12) * v(4))


def picture(C, I, scene, rays, R, lh, hit, cover, tables):
    """Composes the picture from back to front: linear light `[n, 3, S, S]`."""
    S, px, P = hit.shape[-1], rays.px, C.I
    lights = lamp(I, scene, R, lh)
    img = background(scene, tables, S)
    wig = hair(C, I, lights, rays, tables, px)
    if wig is not None:
        part = at(img, wig.box)
        lay(part, wig.colour * .38, wig.behind)
    neck(img, C, I, scene, lights, rays, R, px)
    box = window(cover)
    lit = None
    glasses = bool((P['glasses'] > 0).any())
    if box:
        colour, lit, p = face(C, I, lights, rays, hit, tables, box)
        if glasses:
            side = P['eye_spacing'] + P['glasses_size'] * .95
            temple = ramp(.014 - (p.y - .04).abs(), px * 1.15) * smooth(p.ax, side, side + .1 * P['glasses_size'])
            lay(colour, rgb(I['glasses_rgb']) * lit, temple * (P['glasses'] > 0).float())
        part = at(img, box)
        lay(part, colour, at(cover, box))
    if wig is not None:
        part, y = at(img, wig.box), rays.head_origin[1] + at(hit, wig.box) * at(rays.head[1], wig.box)
        contact = at(cover, wig.box) * (1 - P['bald']) * (1 - wig.front) * gauss(wig.edge.clamp(max=0), .10) * smooth(y, -.1, .3)
        part *= 1 - .35 * contact[:, None]
        lay(part, wig.colour * (.75 + .25 * wig.crown)[:, None], wig.front)
        wig.front_all, wig.near_all = torch.zeros_like(hit), torch.zeros_like(hit)
        at(wig.front_all, wig.box).copy_(wig.front)
        at(wig.near_all, wig.box).copy_(wig.near)
    ears(img, C, I, lights, rays, hit, cover, wig, px)
    if glasses and box:
        spectacles(img, lens(C, rays, px), I, lights, lit, cover, box)
    if bool((scene['occluder'][:, 4] > 0).any()):
        img = occluder(img, I, scene, lights)
    return img


def develop(img, I, scene, gen):
    """The camera: metering on the face, tone curve, gamma, blur, noise. Linear light -> sRGB 0..1."""
    meter = .86 + .75 * (I['tone'] / 9) ** 2
    img = (img * (scene['exposure'] * meter * -1.25 * LOG2E).view(-1, 1, 1, 1)).clamp_(max=0)
    img = power((1 - img.exp2_()).clamp_(1e-5, 1), 1 / 2.2)
    if bool((scene['blur'] > 0).any()):
        p = F.pad(img, (2, 2, 2, 2), mode='replicate')
        p = .0625 * (p[..., :-4] + p[..., 4:]) + .25 * (p[..., 1:-3] + p[..., 3:-1]) + .375 * p[..., 2:-2]
        p = .0625 * (p[..., :-4, :] + p[..., 4:, :]) + .25 * (p[..., 1:-3, :] + p[..., 3:-1, :]) + .375 * p[..., 2:-2, :]
        img = torch.lerp(img, p, scene['blur'].view(-1, 1, 1, 1))
    if bool((scene['noise'] > 0).any()):
        noise = torch.randn(img.shape, generator=gen, device=gen.device if gen else img.device)
        img = img + scene['noise'].view(-1, 1, 1, 1) * noise.to(img.device)
    return img.clamp(0, 1)
