"""Answers to 09_transfer: `f__name` answers f.

`Says:` is what the failing test must tell. Names with `right` must pass.
"""
import numpy as np
import pandas as pd

from s4d import config


def paired__two_bootstraps(system, reference, resamples=1000, seed=0):
    """Bootstraps each system by itself and subtracts.

    Says: resample the DIFFERENCE
    """
    rng, drawn = np.random.default_rng(seed), []
    if set(system.path) != set(reference.path):
        raise ValueError("different clips")
    for table in (system, reference):
        people = table.groupby("subject").correct.mean().to_numpy()
        drawn.append(people[rng.integers(len(people), size=(resamples, len(people)))].mean(1))
    low, high = np.percentile(drawn[0] - drawn[1], [2.5, 97.5])
    return system.correct.mean() - reference.correct.mean(), low, high


def paired__by_row_number(system, reference, resamples=1000, seed=0):
    """Subtracts row by row.

    Says: pair by path
    """
    gain = (
        pd.Series(system.correct.to_numpy() - reference.correct.to_numpy())
        .groupby(system.subject.to_numpy())
        .mean()
        .to_numpy()
    )
    drawn = gain[np.random.default_rng(seed).integers(len(gain), size=(resamples, len(gain)))].mean(
        1
    )
    return (float(gain.mean()), *np.percentile(drawn, [2.5, 97.5]))


def paired__clips_drawn(system, reference, resamples=1000, seed=0):
    """Bootstraps clips.

    Says: draw PEOPLE
    """
    gain = (system.set_index("path").correct - reference.set_index("path").correct).to_numpy()
    drawn = gain[np.random.default_rng(seed).integers(len(gain), size=(resamples, len(gain)))].mean(
        1
    )
    return (float(gain.mean()), *np.percentile(drawn, [2.5, 97.5]))


def paired__reference_minus_system(system, reference, resamples=1000, seed=0):
    """Subtracts the wrong way round.

    Says: system minus reference
    """
    gain = reference.set_index("path").correct - system.set_index("path").correct
    each = gain.groupby(reference.set_index("path").subject).mean().to_numpy()
    drawn = each[np.random.default_rng(seed).integers(len(each), size=(resamples, len(each)))].mean(
        1
    )
    return (float(gain.mean()), *np.percentile(drawn, [2.5, 97.5]))


def paired__other_clips_dropped(system, reference, resamples=1000, seed=0):
    """Compares what both have and drops the rest in silence.

    Says: must raise a ValueError
    """
    both = system.merge(reference, on="path", suffixes=("", "_r"))
    each = (both.correct - both.correct_r).groupby(both.subject).mean().to_numpy()
    drawn = each[np.random.default_rng(seed).integers(len(each), size=(resamples, len(each)))].mean(
        1
    )
    return (float((both.correct - both.correct_r).mean()), *np.percentile(drawn, [2.5, 97.5]))


def paired__right_with_weights(system, reference, resamples=1000, seed=0):
    """Multinomial weights on people."""
    a, b = system.set_index("path").sort_index(), reference.set_index("path").sort_index()
    if not a.index.equals(b.index):
        raise ValueError("different clips")
    names, unit = np.unique(a.subject, return_inverse=True)
    gain = (a.correct - b.correct).to_numpy()
    times = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), resamples
    )
    drawn = times @ np.bincount(unit, gain) / (times @ np.bincount(unit))
    return gain.mean(), np.quantile(drawn, 0.025), np.quantile(drawn, 0.975)


def verdict__zero_inside_is_no_harm(low, high, margin):
    """Takes an interval that includes 0 for the proof of no harm.

    Says: not finding harm is not finding no harm
    """
    return "harm" if high < 0 else "help" if low > 0 else "no harm beyond the margin"


def verdict__never_excludes(low, high, margin):
    """Knows significant and not.

    Says: that excludes harm that would matter
    """
    return "harm" if high < 0 else "help" if low > 0 else "undecided"


def verdict__middle_decides(low, high, margin):
    """Judges by the middle of the interval.

    Says: an interval that includes 0 AND a loss of 20 points
    """
    middle = (low + high) / 2
    return (
        "harm"
        if high < 0
        else "help"
        if low > 0
        else "no harm beyond the margin"
        if middle > -margin
        else "undecided"
    )


def verdict__margin_first(low, high, margin):
    """Asks the margin before the sides.

    Says: a small harm is a harm
    """
    return (
        "help"
        if low > 0
        else "no harm beyond the margin"
        if low > -margin
        else "harm"
        if high < 0
        else "undecided"
    )


def verdict__right_by_table(low, high, margin):
    """Conditions in another order."""
    if low <= 0 <= high:
        return ("undecided", "no harm beyond the margin")[low > -margin]
    return "harm" if low < 0 else "help"


def design__fewer_epochs_for_joint(cfg):
    """Matches the total number of steps by shortening the joint run.

    Says: change ONE thing
    """
    joint = config.update(cfg, tasks=("image", "video"), epochs=cfg.epochs / 2)
    return {
        "alone": (cfg, None),
        "joint": (joint, "alone"),
        "experts": (config.update(joint, num_experts=8), "joint"),
        "half the photos": (config.update(joint, image_fraction=0.5), "joint"),
    }


def design__experts_against_alone(cfg):
    """Compares S4D with single-task training: tasks and experts change at once.

    Says: change ONE thing
    """
    joint = config.update(cfg, tasks=("image", "video"))
    return {
        "alone": (cfg, None),
        "joint": (joint, "alone"),
        "s4d": (config.update(joint, num_experts=8), "alone"),
        "half the photos": (config.update(joint, image_fraction=0.5), "joint"),
    }


def design__two_arms(cfg):
    """Compares joint with alone and nothing else.

    Says: not why: add controls
    """
    return {"alone": (cfg, None), "joint": (config.update(cfg, tasks=("image", "video")), "alone")}


def design__another_seed_as_an_arm(cfg):
    """Counts seeds as arms.

    Says: seeds belong to all arms alike
    """
    joint = config.update(cfg, tasks=("image", "video"))
    return {
        "alone": (cfg, None),
        "joint": (joint, "alone"),
        "again": (config.update(joint, seed=joint.seed + 1), "joint"),
        "experts": (config.update(joint, num_experts=8), "joint"),
    }


def design__right_other_controls(cfg):
    """Longer training alone, fewer clips, adapters between dense and routed."""
    joint = config.update(cfg, tasks=("video", "image"))
    return {
        "alone": (cfg, None),
        "joint": (joint, "alone"),
        "longer alone": (config.update(cfg, epochs=1.5 * cfg.epochs), "alone"),
        "fewer clips": (config.update(joint, video_fraction=0.5), "joint"),
        "s4d": (config.update(joint, num_experts=4), "joint"),
    }


def run_design__only_the_good_ones(seeds):
    """Reports the arm that worked.

    Says: report every comparison that was planned
    """
    return pd.DataFrame(
        [
            dict(
                arm="experts",
                reference="joint",
                difference=0.05,
                low=0.01,
                high=0.09,
                verdict="help",
                seeds=len(seeds),
                samples=20,
                people=4,
            )
        ]
    )


def run_design__verdict_by_hand(seeds):
    """Writes the verdict it hoped for.

    Says: does not follow from its interval
    """
    arms = {"joint": "alone", "half the photos": "joint", "experts": "joint"}
    return pd.DataFrame(
        [
            dict(
                arm=a,
                reference=r,
                difference=0.02,
                low=-0.2,
                high=0.2,
                verdict="help",
                seeds=len(seeds),
                samples=20,
                people=4,
            )
            for a, r in arms.items()
        ]
    )


def run_design__one_seed(seeds):
    """Trains once.

    Says: one seed tells one run from another
    """
    arms = {"joint": "alone", "half the photos": "joint", "experts": "joint"}
    return pd.DataFrame(
        [
            dict(
                arm=a,
                reference=r,
                difference=0.0,
                low=-0.2,
                high=0.2,
                verdict="undecided",
                seeds=1,
                samples=20,
                people=4,
            )
            for a, r in arms.items()
        ]
    )


def run_design__per_cent(seeds):
    """Gives per cent.

    Says: are shares, not per cent
    """
    arms = {"joint": "alone", "half the photos": "joint", "experts": "joint"}
    return pd.DataFrame(
        [
            dict(
                arm=a,
                reference=r,
                difference=3.0,
                low=1.0,
                high=5.0,
                verdict="help",
                seeds=len(seeds),
                samples=20,
                people=4,
            )
            for a, r in arms.items()
        ]
    )
