"""What comparisons claim, against what is true: false claims, coverage, the winner's optimism; their speed and errors.

    python benchmarks/claims.py [--quick]

By simulation, exact for the seed, with the standard error of each as ..._error (see `simulated.py`):

    false_claims_DESIGN   studies of equal settings in which at least one row says `worse` (or `better`)
    coverage_DESIGN       studies of two settings, neither of which was chosen, whose interval has the true gap
    false_claims          studies of two equal runs of one seed, one of which is called better
    best_set_coverage     of 8 equal runs, each in turn the best: how often it is in the set that cannot be told from it
    pooled_coverage       three seeds of 8 equal settings: how often the interval of a gap, with the pooled variance of
                          training, has 0; ..._means: that of a setting's mean has its true AUROC; ..._all: the
                          intervals of all gaps, which hold at once, all have 0
    winner_bias_left      of 8 equal runs of 12 epochs: what is left of the winner's optimism after its correction, of
                          what it was; ..._unequal where runs differ in truth, as much as by chance
    se_ratio              standard error of a macro mean AUROC by influence values, of that of 5,000 draws of patients;
                          ..._gap of the gap of two models

On one thread, of 25,596 images of 2,797 patients and 14 findings as rare as in the test list of ChestX-ray14:

    bootstrap_s           1,000 draws, two models, all five figures
    all_pairs_60_s        influence values of 60 runs, the set and the intervals of all pairs
    auroc_max_error       against scikit-learn, of float16 scores, by influence values and in drawn patients
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import recording
import simulated
from numpy.typing import NDArray
from recording import Limit
from simulated import EQUALS, ONE_SEED, PAIRS, RARE, TWO_RUNS, Design, Truth
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from xlite_search.results import seeds
from xlite_search.results.bootstrap import bootstrap
from xlite_search.results.inference import Training, half_widths, joint
from xlite_search.results.influence import influence
from xlite_search.results.intervals import own
from xlite_search.results.ties import among

RARE_POSITIVES, FREQUENT_POSITIVES = (4, 8), (16, 600)
STUDIES, QUICK_STUDIES, SEED = 1000, 10, 0
FALSE_CLAIMS, COVERAGE_RARE, COVERAGE = Limit(most=0.06), Limit(least=0.92), Limit(least=0.93, most=0.97)
#: of two runs, which are drawn in no time
PAIRS_OF_RUNS = 4000
LEFT = Limit(least=-0.2, most=0.2)
LIMITS = {design.figure("false_claims"): FALSE_CLAIMS for design in EQUALS} | {
    design.figure("coverage"): COVERAGE_RARE if design.prevalences == RARE else COVERAGE for design in PAIRS
}
LIMITS |= {"false_claims": FALSE_CLAIMS, "best_set_coverage": Limit(least=0.93), "winner_bias_left": LEFT}
LIMITS |= {f"pooled_coverage{of}": COVERAGE for of in ("", "_means", "_all")}
LIMITS |= {"se_ratio": Limit(0.97, 1.03), "bootstrap_s": Limit(most=3), "all_pairs_60_s": Limit(most=5)}
LIMITS |= {"auroc_max_error": Limit(most=1e-12)}

#: of the official test list; the rarest has 87 positives
IMAGES, PATIENTS, RUNS = 25_596, 2_797, 60
PREVALENCES = (0.128, 0.042, 0.182, 0.239, 0.068, 0.063, 0.022, 0.104, 0.071, 0.036, 0.043, 0.017, 0.045, 0.0034)


@dataclass(frozen=True)
class Share:
    """Of studies; with its standard error."""

    share: float
    error: float


def _share(seen: Sequence[float] | NDArray[np.bool_]) -> Share:
    """The mean over studies, of each of which it is a share, or a yes or no."""
    return Share(float(np.mean(seen)), float(np.std(seen) / math.sqrt(len(seen))))


def false_claims(design: Design, studies: int, seed: int) -> Share:
    """Studies of equal settings in which at least one row says `worse` (or `better`)."""
    random = np.random.default_rng(seed)
    tables = (simulated.table(design, random) for _ in range(studies))
    return _share([any(arm.standing.verdict in ("worse", "better") for arm in arms) for arms in tables])


def coverage(design: Design, studies: int, seed: int) -> Share:
    """Studies of two settings, neither of which was chosen, whose interval has the true gap."""
    random = np.random.default_rng(seed)
    positives = RARE_POSITIVES if design.prevalences == RARE else FREQUENT_POSITIVES
    gaps = (simulated.table(design, random, positives)[1].standing for _ in range(studies))
    return _share([gap.low <= 0 <= gap.high for gap in gaps])


def false_claims_of_runs(studies: int, seed: int) -> Share:
    """Two equal runs of one seed, one of which is called better."""
    random, wrong = np.random.default_rng(seed), []
    for _ in range(studies):
        areas, law, _ = simulated.flat(simulated.settings_of(TWO_RUNS, random, FREQUENT_POSITIVES))
        found = among(areas, law)
        wrong.append(any(each.verdict in ("worse", "better") for each in found.standings))
    return _share(wrong)


def best_set(studies: int, seed: int) -> Share:
    """Each of equal runs is a best one: how often it is in the set that cannot be told from the best."""
    random, kept = np.random.default_rng(seed), []
    for _ in range(studies):
        areas, law, _ = simulated.flat(simulated.settings_of(ONE_SEED, random, FREQUENT_POSITIVES))
        kept.append(len(among(areas, law).set) / len(areas))
    return _share(kept)


def pooled(design: Design, studies: int, seed: int) -> tuple[Share, Share, Share]:
    """Of the gap between the first two settings, of each setting's mean, and of all gaps at once."""
    random, seen = np.random.default_rng(seed), []
    for _ in range(studies):
        areas, law, places = simulated.flat(simulated.settings_of(design, random))
        many = len(places)
        pairs = [(one, other) for one in range(many) for other in range(one + 1, many)]
        sides = [tuple(list(places[setting].values()) for setting in pair) for pair in pairs]
        contrasts = seeds.contrasts(sides, len(areas))
        training = seeds.of_gaps(places, sides, areas, law.covariance)
        first = Training(training.variance[:1], training.sampling[:1], training.dof)
        gaps = np.abs(contrasts @ areas)
        alone, every = half_widths(contrasts[:1], law, first), half_widths(contrasts, law, training)
        means = own(areas, law, seeds.means(places, len(areas)), seeds.of_means(places, areas, law.covariance))
        of_means = np.mean([each.low <= design.area <= each.high for each in means])
        seen.append((gaps[0] <= alone[0], of_means, (gaps <= every).all()))
    gap, mean, whole = (_share(column) for column in zip(*seen, strict=True))
    return gap, mean, whole


@dataclass(frozen=True)
class Optimism:
    """Of winners: how much too good their scores are, and how much is left of it after the correction."""

    raw: float
    left: float
    error: float


def winners(studies: int, seed: int, spread: float = 0.0) -> Optimism:
    """Of studies of 8 runs. The luck that all runs share, and that nobody was chosen by, is subtracted."""
    seen = []
    for search in simulated.searches(studies, 8, seed, spread):
        found, true, shared = search.winner()
        seen.append((found.score - true - shared, found.corrected - true - shared))
    raw, left = np.array(seen).T
    return Optimism(float(raw.mean()), float(left.mean()), float(left.std() / math.sqrt(studies)))


def like_test_list(models: int, seed: int, images: int) -> tuple[NDArray[np.float16], Truth, NDArray[np.int64]]:
    """Logits `[model, image, finding]` with as many ties as float16 has, truth, and patients."""
    random = np.random.default_rng(seed)
    groups = np.unique(random.integers(PATIENTS * images // IMAGES, size=images), return_inverse=True)[1]
    truth = random.random((images, len(PREVALENCES))) < PREVALENCES
    common = simulated.common_part(truth, groups, random) + 1.2 * truth - 2
    scores = [common + 0.5 * random.normal(size=truth.shape) for _ in range(models)]
    return np.array(scores, np.float16), truth, groups


def max_error(logits: NDArray[np.float16], truth: Truth, groups: NDArray[np.int64]) -> float:
    """The largest difference to scikit-learn of any finding's AUROC, as it is and in three draws of patients."""
    names = [str(number) for number in range(truth.shape[1])]
    found = bootstrap(logits, truth, groups, names, figures=("auroc",), draws=3, seed=SEED)
    places, worst = np.random.default_rng(SEED).integers(groups.max() + 1, size=(3, groups.max() + 1)), 0.0
    weights = [np.bincount(row, minlength=groups.max() + 1)[groups] for row in places]
    for model, scores in enumerate(logits.astype(np.float64)):
        expected = roc_auc_score(truth, scores, average=None)
        both = influence(logits[model], truth, groups).score, found.figures["auroc"][model]
        worst = max(worst, *(float(np.abs(each - expected).max()) for each in both))
        for draw, weight in enumerate(weights):
            there = weight > 0
            area = roc_auc_score(truth[there], scores[there], average=None, sample_weight=weight[there])
            worst = max(worst, float(np.nanmax(np.abs(found.draws["auroc"][model, :, draw] - area))))
    return worst


def se_ratios(logits: NDArray[np.float16], truth: Truth, groups: NDArray[np.int64], draws: int) -> tuple[float, float]:
    """Of a model's macro mean, and of the gap of two."""
    names = [str(number) for number in range(truth.shape[1])]
    found = bootstrap(logits[:2], truth, groups, names, figures=("auroc",), draws=draws, seed=SEED)
    law = joint([influence(each, truth, groups) for each in logits[:2]])
    one, gap = np.sqrt(law.variance(np.array([[1.0, 0.0], [1.0, -1.0]])))
    return float(one / found.macro("auroc", 0).error), float(gap / found.macro("auroc", 0, 1).error)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _all_pairs(logits: NDArray[np.float16], truth: Truth, groups: NDArray[np.int64]) -> None:
    runs = [influence(logits[run % len(logits)] + np.float16(run), truth, groups) for run in range(RUNS)]
    areas, law = np.array([run.score.mean() for run in runs]), joint(runs)
    among(areas, law)
    own(areas, law)


def engine(quick: bool) -> dict[str, float]:
    """Speed and errors on a data set of the size of a test list."""
    images, draws = (1_000, 100) if quick else (IMAGES, 5_000)
    logits, truth, groups = like_test_list(4, SEED, images)
    names = [str(number) for number in range(truth.shape[1])]
    with threadpool_limits(1):
        ratio, of_gap = se_ratios(logits, truth, groups, draws)
        return {
            "auroc_max_error": max_error(logits, truth, groups),
            "se_ratio": ratio,
            "se_ratio_gap": of_gap,
            "bootstrap_s": _seconds(lambda: bootstrap(logits[:2], truth, groups, names, draws=draws // 5)),
            "all_pairs_60_s": _seconds(lambda: _all_pairs(logits, truth, groups)),
        }


def measure(quick: bool) -> dict[str, float]:
    studies, found = QUICK_STUDIES if quick else STUDIES, dict[str, float]()

    def keep(figure: str, seen: Share, about: str, of: int = studies) -> None:
        found.update({figure: seen.share, f"{figure}_error": seen.error})
        print(f"{about}: {figure} {seen.share:.3f} +- {seen.error:.3f} of {of}", flush=True)

    for name, of, designs in (("false_claims", false_claims, EQUALS), ("coverage", coverage, PAIRS)):
        for design in designs:
            about = f"{design.settings} settings x {design.seeds} seeds, {design.name}"
            keep(design.figure(name), of(design, studies, SEED), about)
    pairs = studies if quick else PAIRS_OF_RUNS
    keep("false_claims", false_claims_of_runs(pairs, SEED), "two equal runs", pairs)
    keep("best_set_coverage", best_set(studies, SEED), "8 equal runs")
    for of_what, seen in zip(("", "_means", "_all"), pooled(EQUALS[2], studies, SEED), strict=True):
        keep(f"pooled_coverage{of_what}", seen, "8 settings x 3 seeds, both")
    for figure, spread in (("winner_bias_left", 0.0), ("winner_bias_left_unequal", 0.06)):
        won = winners(studies, SEED, spread)
        keep(figure, Share(won.left / won.raw, won.error / won.raw), f"8 runs x {simulated.EPOCHS} epochs")
        found[figure.replace("bias_left", "bias")] = won.raw
    return found | engine(quick) | {"studies": studies, "seed": SEED}


if __name__ == "__main__":
    recording.run("claims", __doc__, measure, LIMITS)
