"""Analyses on cases whose answers are known."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text

from s4d.analysis import confusions as cf
from s4d.analysis import correlation as co
from s4d.analysis import experts as ex
from s4d.analysis import stimuli as st
from s4d.models import create
from s4d.plots import study_correlation, study_experts

NAMES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")


def tiny(experts: int = 4, seed: int = 0):
    """A model of 2 blocks whose experts were moved away from zero, so that routing matters."""
    torch.manual_seed(seed)
    model = create("s4d_nano_patch16_64", size=32, frames=4, width=32, depth=2, heads=2, stem=8, experts=experts).eval()
    for layer in model.moae_layers().values():
        torch.nn.init.normal_(layer.w2, std=0.3)
        torch.nn.init.normal_(layer.router.weight, std=1.0)
    return model


def pictures(n: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def clips(n: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 4, 32, 32), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)


def labelled(n: int, subjects: int = 6) -> pd.DataFrame:
    return pd.DataFrame(dict(path=[f"{i}.jpg" for i in range(n)], label=[NAMES[i % 7] for i in range(n)],
                             subject=[f"s{i % subjects}" for i in range(n)]))


# Experts

def test_recorded_gates_sum_to_one_and_the_model_stays_as_it_was():
    model, x = tiny(), pictures()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plain = st.features(model, x)
    routes = ex.routes_of(model, x)
    assert list(routes) == [1] and routes[1].shape == (12, 4, 4)
    torch.testing.assert_close(routes[1].sum(-1), torch.ones(12, 4))
    assert ((routes[1] > 0).sum(-1) == 2).all()
    assert all(layer.record is None for layer in model.moae_layers().values())
    np.testing.assert_array_equal(st.features(model, x), plain)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_recorder_gives_up_its_place_after_an_error_and_to_an_outer_one():
    model, layer = tiny(), 1
    with pytest.raises(RuntimeError), ex.record_routing(model):
        raise RuntimeError
    assert model.moae_layers()[layer].record is None
    with ex.record_routing(model) as outer:
        with ex.record_routing(model) as inner:
            st.features(model, pictures(2))
        st.features(model, pictures(2))
    assert len(outer[layer]) == len(inner[layer]) == 1
    with pytest.raises(ValueError, match="experts=0"), ex.record_routing(tiny(experts=0)):
        pass


def test_an_expert_is_switched_off_inside_the_context_only():
    model, x = tiny(), pictures()
    free = ex.routes_of(model, x)[1]
    busiest = int(free.sum((0, 1)).argmax())
    with ex.without_expert(model, 1, busiest):
        masked = ex.routes_of(model, x)[1]
    assert masked[..., busiest].sum() == 0 < free[..., busiest].sum()
    torch.testing.assert_close(masked.sum(-1), torch.ones(12, 4))
    assert torch.equal(ex.routes_of(model, x)[1], free)
    with pytest.raises(ValueError, match="no expert 9 in block 1"), ex.without_expert(model, 1, 9):
        pass
    changes = ex.cost_of_experts(model, x, labelled(12), np.zeros(12, int), "image", resamples=20)
    assert len(changes) == 4 and 0 < changes.change.abs().max() <= 100 and (changes.low <= changes.high).all()


def test_usage_counts_assignments_by_emotion():
    gates = torch.zeros(4, 2, 3)
    gates[:2, :, 0], gates[2:, :, 1], gates[:, :, 2] = 0.7, 0.7, 0.3     # two labels with an expert of their own, one shared
    rows = pd.DataFrame(dict(label=["fear", "fear", "anger", "anger"], subject=list("abcd")))
    table = ex.usage_table({3: gates}, rows, "image").set_index(["emotion", "expert"])
    assert table.share["fear"].tolist() == [0.5, 0, 0.5] and table.share["anger"].tolist() == [0, 0.5, 0.5]
    assert table.share["all"].tolist() == [0.25, 0.25, 0.5]
    assert table.gate["fear"].tolist() == pytest.approx([0.7, 0, 0.3])
    found = ex.entropy_table({3: gates}, "image").iloc[0]
    assert found.effective_experts == pytest.approx(2 ** 1.5) and found.unused == 0


def test_token_maps_put_a_token_where_it_lies_on_the_face():
    gates = torch.zeros(5, 2 * 2 * 3, 2)
    gates[:, [4, 10], 1] = 1.0                                            # row 1, column 1, at both time steps
    maps = ex.token_maps(gates, (2, 2, 3))
    assert maps.shape == (2, 2, 3) and maps[1, 1, 1] == 1 and maps.sum() == 1
    table = ex.maps_table({3: gates}, (2, 2, 3), "video")
    assert len(table) == 12 and table.loc[table.gate.idxmax(), ["block", "expert", "row", "column"]].tolist() == [4, 2, 1, 1]
    with pytest.raises(ValueError, match="12 tokens"):
        ex.token_maps(gates, (1, 2, 3))


def test_information_of_separate_equal_and_unbalanced_groups():
    usage = np.eye(2)[[0, 0, 0, 1]]
    member = np.array([[1, 1, 1, 0], [0, 0, 0, 1]])
    assert ex.information(usage, member) == pytest.approx(1.0)            # group sizes do not matter
    assert ex.information(np.full((4, 2), 0.5), member) == pytest.approx(0.0)
    assert ex.information(usage, member[[0, 0]]) == pytest.approx(0.0)


def test_specificity_finds_a_planted_task_and_not_a_permuted_one():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(20), 4)
    task = np.where(units < 10, "image", "video")
    usage = rng.dirichlet(np.ones(4), 80)
    planted = usage + np.where(task == "image", 1.0, 0.0)[:, None] * np.array([2, 0, 0, 0])
    planted /= planted.sum(1, keepdims=True)
    found = ex.specificity(planted, task, units, blocks=True, permutations=200)
    assert found["bits"] > 3 * found["null_95"] and found["p"] < 0.02
    assert found["low"] <= found["bits"] <= found["high"] + 0.02
    assert ex.specificity(usage, task, units, blocks=True, permutations=200)["p"] > 0.05


def test_the_null_over_whole_subjects_is_not_fooled_by_subjects():
    units, p = np.repeat(np.arange(8), 20), {False: [], True: []}
    for seed in range(6):
        usage = np.random.default_rng(seed).dirichlet(np.ones(4) * 0.5, 8)[units]        # only the subject decides
        for blocks in p:
            task = np.where(units < 4, "image", "video")
            p[blocks].append(ex.specificity(usage, task, units, blocks=blocks, permutations=60)["p"])
    assert max(p[False]) < 0.05 and np.median(p[True]) > 0.1


def test_place_specificity_of_a_router_that_reads_positions_and_of_one_that_does_not():
    by_place = torch.eye(4)[torch.arange(4)].expand(10, 4, 4)
    found = ex.place_specificity(by_place)
    assert found["bits"] == pytest.approx(2.0) and found["p"] < 0.02
    random = torch.eye(4)[torch.randint(0, 4, (50, 4), generator=torch.Generator().manual_seed(0))]
    assert ex.place_specificity(random)["p"] > 0.05


def test_specificity_table_names_every_question():
    model = tiny()
    rows = {"image": labelled(14), "video": labelled(6, 3)}
    table = ex.specificity_table(ex.routes_of(model, pictures(14)), ex.routes_of(model, clips()), rows, permutations=20)
    assert set(table.about) == {"task", "task, first time step", "emotion, image", "emotion, video", "place, image", "place, video"}
    assert (table.bits <= table.limit + 1e-9).all() and (table.bits >= -1e-9).all()


def test_seed_agreement_ignores_the_experts_numbers():
    gates = torch.rand(20, 8, 4, generator=torch.Generator().manual_seed(0))
    other = torch.rand(20, 8, 4, generator=torch.Generator().manual_seed(1))
    table = ex.seed_agreement({0: {2: gates}, 1: {2: gates[..., [2, 0, 3, 1]]}, 2: {2: other}}).set_index(["seed_a", "seed_b"]).agreement
    assert table[0, 1] == pytest.approx(1.0) and abs(table[0, 2]) < 0.1
    assert ex.seed_agreement({0: {2: gates}}).empty


def test_released_routing_changes_between_passes_and_paper_routing_does_not():
    model, x = tiny(), pictures(40)
    torch.nn.init.constant_(model.blocks[1].moae.noise.bias, 3.0)
    table = ex.compare_modes(model, x, np.zeros(40, int), "image")
    shift, dropped = table.groupby("mode")["shift"].max(), table.groupby("mode").dropped.first()
    assert shift["paper"] < 1e-5 and dropped["paper"] == dropped["noise only"] == 0
    assert min(shift["noise only"], shift["released"], shift["capacity only"]) > 1e-4
    assert 0 < dropped["capacity only"] < 1
    layer = model.moae_layers()[1]
    assert layer.capacity_factor is None and layer.noisy == "train"
    summary = ex.modes_table(table, {"image": labelled(40).subject}, resamples=20).set_index("mode")
    assert summary.change["paper"] == 0 and summary["shift"]["released"] > 0
    lost = table.assign(correct=np.where(table["mode"] == "released", 0.0, 1.0))
    assert ex.modes_table(lost, {"image": labelled(40).subject}, resamples=20).set_index("mode").change["released"] == -100


# Correlation

def test_cka_and_rsa_of_equal_rotated_and_independent_representations():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(60, 12)), rng.normal(size=(60, 30))
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    assert co.cka(x, x) == pytest.approx(1) and co.rsa(x, x) == pytest.approx(1)
    assert co.cka(x, 3 * x @ turn + 1) == pytest.approx(1) and co.rsa(x, 3 * x @ turn + 1) == pytest.approx(1)
    assert abs(co.cka(x, noise)) < 0.1 and abs(co.rsa(x, noise)) < 0.1
    with pytest.raises(ValueError, match="at least 4"):
        co.cka(x[:3], x[:3])


def test_rsa_is_scipys_spearman_of_the_distances():
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20, 6))
    y = x[:, :4] + rng.normal(size=(20, 4))
    assert co.rsa(x, y) == pytest.approx(spearmanr(*(pdist(v - v.mean(0), "cosine") for v in (x, y)))[0])


def test_layer_similarity_tells_category_from_individual_content():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 15)
    category, own = rng.normal(size=(4, 10))[labels] * 2, rng.normal(size=(60, 10))
    noise = lambda: 0.5 * rng.normal(size=(60, 10))
    pairs = {"category": (category + noise(), category + noise()), "own": (own + noise(), own + noise()), "none": (noise(), noise())}
    first, second = ({k: v[i] for k, v in pairs.items()} for i in (0, 1))
    table = co.similarity_by_layer(first, second, labels, permutations=60).query("measure == 'cka'").set_index("layer")
    assert table.p_any["category"] < 0.05 < table.p_within["category"]
    assert table.p_within["own"] < 0.05 and table.p_any["none"] > 0.05


def test_prototypes_match_across_an_offset_and_not_when_classes_are_renamed():
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(7, 20)), np.array(NAMES)[np.arange(140) % 7]
    make = lambda offset: centres[np.arange(140) % 7] + offset + 0.3 * rng.normal(size=(140, 20))
    a, b = co.prototypes(make(0), labels, NAMES), co.prototypes(make(9), labels, NAMES)
    found = co.matched_classes(a @ b.T)
    assert found["diagonal"] > 0.9 and found["p"] < 0.01
    photos, moving = ({("m", seed): make(offset) for seed in (0, 1)} for offset in (0, 9))
    cells, stats = co.prototype_study(photos, moving, labels, labels, list(NAMES))
    equal = cells[cells.image_class == cells.video_class].cosine
    assert len(cells) == 49 and equal.mean() == pytest.approx(stats.diagonal[0]) and stats.seed_low[0] <= stats.seed_high[0]
    assert co.matched_classes(a @ b[[1, 2, 3, 4, 5, 6, 0]].T)["p"] > 0.5


def test_a_class_without_samples_is_left_out_of_the_match():
    rng = np.random.default_rng(0)
    labels = np.array(NAMES)[np.arange(60) % 6]
    p = co.prototypes(rng.normal(size=(60, 8)), labels, NAMES)
    found = co.matched_classes(p @ p.T)
    assert np.isnan(p[6]).all() and found["diagonal"] == pytest.approx(1)


def test_transfer_reads_the_trained_head_on_the_other_modality():
    model, x, rows = tiny(), clips(), labelled(6)
    pooled = st.features(model, x)
    read = pd.concat([co.read_by_head(model, pooled, rows, head, NAMES, list(NAMES)).assign(method="m", seed=0, head=head, stimuli="video")
                      for head in ("image", "video")])
    direct = model.head["image"](torch.from_numpy(pooled).float()).argmax(1)
    assert read[read["head"] == "image"].predicted.tolist() == [NAMES[i] for i in direct]
    table = co.transfer_matrix(read, resamples=50)
    assert table.zero_shot.tolist() == [True, False] and table.war.between(0, 100).all()
    part = co.read_by_head(model, pooled, rows, "image", NAMES, ["neutral", "fear"])
    assert set(part.predicted) <= {"neutral", "fear"} and set(part.label) == {"neutral", "fear"}


def curves(follow: bool) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for c in range(12):
        apex = 4 + c % 5
        intensity = np.exp(-0.5 * ((np.arange(14) - apex) / 2) ** 2)
        probability = 0.2 + 0.6 * intensity if follow else rng.random(14)
        rows += [(f"{c}.mp4", NAMES[1 + c % 2], f"s{c % 4}", t, apex, p, i) for t, (p, i) in enumerate(zip(probability, intensity))]
    return pd.DataFrame(rows, columns=["path", "label", "subject", "frame", "apex", "probability", "intensity"])


def test_a_planted_course_is_found_and_locked_to_the_apex():
    table = cf.course(curves(True), fps=8, resamples=50)
    mean = table[(table.label == "expressive") & (table.quantity == "probability")].set_index("time")["mean"]
    assert mean.idxmax() == 0 and mean[0] == pytest.approx(0.8) and mean.index.min() >= -1
    found = cf.follow(curves(True), resamples=50)
    assert (found["mean"] > 0.999).all() and (found.null < found["mean"] - 0.05).all()
    assert (cf.follow(curves(False), resamples=50)["mean"].abs() < 0.3).all()


def test_without_truth_the_course_is_locked_to_the_middle():
    frames = curves(True).assign(apex=np.nan, intensity=np.nan)
    table = cf.course(frames, resamples=20)
    assert set(table.quantity) == {"probability"} and table.time.min() >= -7 and table.time.max() <= 7
    assert cf.follow(frames, resamples=20).empty


def test_confusability_finds_shared_confusions_and_rejects_renamed_ones():
    rng = np.random.default_rng(0)
    base = rng.random((7, 7)) ** 3 + 6 * np.eye(7)
    a, b = (m / m.sum(1, keepdims=True) for m in (base, base + 0.02 * rng.random((7, 7))))
    assert cf.confusability(a, b)["rho"] > 0.8 and cf.confusability(a, b)["p"] < 0.01
    order = rng.permutation(7)
    assert cf.confusability(a, b[np.ix_(order, order)])["p"] > 0.05


def test_soft_confusion_is_the_mean_probability_by_true_class():
    rows = labelled(70).assign(**{f"prob_{n}": p for n, p in zip(NAMES, np.random.default_rng(0).dirichlet(np.ones(7), 70).T)})
    found = cf.soft_confusion(rows, list(NAMES))
    columns = [f"prob_{n}" for n in NAMES]
    np.testing.assert_allclose(found, rows.groupby("label")[columns].mean().loc[list(NAMES)].to_numpy())
    keys = (("m", "image"), ("m", "video"))
    pairs, stats = cf.confusion_study(dict.fromkeys(keys, rows), {"m": keys}, list(NAMES), 20)
    assert len(pairs) == 42 and (pairs.static == pairs.dynamic).all()
    assert stats.rho[0] == pytest.approx(1) and -1 <= stats.low[0] <= stats.high[0] <= 1


def test_apex_frames_take_the_true_apex_or_the_middle():
    frames = pd.DataFrame(dict(path=["a"] * 5 + ["b"] * 3, frame=[0, 1, 2, 3, 4, 0, 1, 2]))
    assert st.apex_frames(frames).tolist() == [2, 6]
    assert st.apex_frames(frames, pd.Series({"a": 4, "b": 0})).tolist() == [4, 5]


def test_files_that_cannot_be_read_are_named_with_their_number():
    assert st.left_out({}) == ""
    assert "1 file cannot" in st.left_out({"a.jpg": "empty"})
    assert st.left_out({"a.jpg": "empty", "b.mp4": "truncated"}) == (
        "Left out, because 2 files cannot be read: `a.jpg` (empty); `b.mp4` (truncated).")


def test_a_broken_photo_and_a_broken_clip_are_left_out_and_named(tmp_path, monkeypatch):
    from PIL import Image

    from s4d.config import Finetune, Source
    for name in ("good", "other"):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
        (tmp_path / name).mkdir()
        for t in range(4):
            Image.new("RGB", (32, 32)).save(tmp_path / name / f"{t}.png")
    (tmp_path / "other.png").write_bytes(b"no picture")
    (tmp_path / "other" / "3.png").write_bytes(b"no picture")
    row = lambda path: dict(path=path, label="fear", subject="a", split="test")
    source = Source("affectnet", str(tmp_path))
    cfg = Finetune(image=source, video=source, size=32, frames=4, stride=1)
    monkeypatch.setattr(st, "tables", lambda cfg: {"image": pd.DataFrame([row("good.png"), row("other.png")])})
    found: dict[str, str] = {}
    x, rows = st.subset(cfg, "image", unreadable=found)
    assert len(x) == 1 and rows.path.tolist() == ["good.png"] and list(found) == ["other.png"] and found["other.png"]
    x, frames = st.frames_of(cfg, pd.DataFrame([row("good"), row("other")]), unreadable=found)
    assert len(x) == 4 and set(frames.path) == {"good"} and list(found) == ["other.png", "other"]


def test_layers_are_read_in_order_and_pooled_is_what_the_heads_see():
    model, x = tiny(), clips()
    found = st.layer_features(model, x)
    assert list(found) == ["embed", "block 1", "block 2", "pooled"]
    np.testing.assert_allclose(found["pooled"], st.features(model, x), atol=1e-6)
    assert np.array_equal(st.choose(10, 4, 1), st.choose(10, 4, 1)) and len(st.choose(3, 10)) == 3


def test_the_size_of_the_experts_branch():
    model = tiny(experts=4)
    x = torch.randn(2, 3, 32, 32)
    for layer in model.moae_layers().values():
        torch.nn.init.zeros_(layer.w2)
        torch.nn.init.zeros_(layer.b2)
    assert set(ex.branch_size(model, x).values()) == {0.0}
    last = list(model.moae_layers())[-1]
    seen = []
    handle = model.blocks[last].mlp.register_forward_hook(lambda module, given, output: seen.append(output.detach()))
    model(x)
    handle.remove()
    torch.nn.init.ones_(model.moae_layers()[last].b2)          # every token gets exactly 1 from this branch
    assert ex.branch_size(model, x)[last] == pytest.approx(float(1 / seen[0].square().mean().sqrt()), rel=1e-5)


# Figures

def confused(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two comparisons with many wrong pairs that lie close together."""
    rng, pairs = np.random.default_rng(seed), [(a, b) for a in NAMES for b in NAMES if a != b]
    cells = pd.concat([pd.DataFrame(dict(comparison=c, label=[a for a, _ in pairs], wrong=[b for _, b in pairs],
                                         static=0.2 + 0.05 * rng.random(42), dynamic=0.2 + 0.05 * rng.random(42))) for c in ("m", "s4d")])
    return cells, pd.DataFrame(dict(comparison=["m", "s4d"], rho=0.5, low=0.1, high=0.9, p=[0.0005, 0.25]))


def test_labels_of_the_scatter_cover_neither_each_other_nor_the_border():
    fig = study_correlation.confusability(*confused(), {"m": "One", "s4d": "Two"})
    fig.draw_without_rendering()
    for ax in fig.axes:
        boxes = [Text.get_window_extent(t) for t in ax.texts]       # without the line to the point
        assert len(boxes) >= 2
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert all(0 <= b.x0 and b.x1 <= fig.bbox.x1 for b in boxes)
    assert "p < 0.001" in fig.axes[0].get_title(loc="left") and "p = 0.250" in fig.axes[1].get_title(loc="left")
    assert "0.000" not in "".join(ax.get_title(loc="left") for ax in fig.axes)


def test_the_legend_along_a_clip_lies_outside_the_axes():
    frames = curves(True)
    courses, follow = cf.course(frames, 8, 20).assign(method="static"), cf.follow(frames, 20).assign(method="static")
    fig = study_correlation.along_clip(courses, follow, "s")
    fig.draw_without_rendering()
    assert all(ax.get_legend() is None for ax in fig.axes)
    legend = fig.legends[0].get_window_extent()
    assert not any(legend.overlaps(ax.get_window_extent()) for ax in fig.axes)


def test_the_label_of_switched_off_experts_fits_into_the_figure():
    table = pd.DataFrame([(b, e, t, 0.1, 0.0, 0.2) for b in (2, 3) for e in (1, 2) for t in ("image", "video")],
                         columns=["block", "expert", "task", "change", "low", "high"])
    fig = study_experts.switched_off(table)
    fig.draw_without_rendering()
    ax = fig.axes[0]
    box, axes = ax.yaxis.label.get_window_extent(), ax.get_window_extent()
    assert axes.y0 <= box.y0 and box.y1 <= axes.y1 and box.x0 >= 0
    assert [a.get_title(loc="left") for a in fig.axes] == ["Block 2", "Block 3"]
