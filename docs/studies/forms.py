"""Forms of the statistic that were tried on the tuning set: docs/forms.md.

python docs/studies/forms.py

With all landmarks, and gradients of all examples at the ends of epochs 2 to 5 of four
runs. What each form says is kept under results/forms and not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from unittest import mock

import joblib
import numpy as np
import torch
from _cache import fill, kept
from _mnist_truth import THRESHOLD
from _run_noise import ENDS
from _single_runs import PARTS, TABLE, curvature_scores, problem_of
from _splits import N_TARGETS
from scipy.linalg import cho_factor, cho_solve
from scipy.special import logsumexp

from fstat.ground_truth import Agreement, agreement
from fstat_torch import GradientCapture
from fstat_torch.targets import log_odds

PAGE = "forms.md"
DAMPING = 3.0
N_RUNS, FOLDS = 4, 13
BASE = "as it is"
memory = joblib.Memory(kept("forms", __file__, *PARTS), verbose=0)
Array = np.ndarray
Subsets = list[Array]


@dataclass
class Moment:
    """All inner products of gradients at one moment of one run.

    Those of the examples are in the metric: of the margin, times the root of 1 - p;
    times it once more they are those of the losses.

    Attributes
    ----------
    kernel : ndarray of shape (n, n)
        Of the examples.
    first : ndarray of shape (n, n)
        The same in the first layer alone.
    aligned, aligned_first : ndarray of shape (n, n_targets)
        Of examples and the targets' margins, and in the first layer alone.
    root : ndarray of shape (n, 1)
        The root of 1 - p of the examples.
    own : ndarray of shape (n_targets,)
        Squared norms of the targets' gradients.
    logits : ndarray of shape (n_targets, n_classes)
        What the model says of the targets.
    aligned_logits : ndarray of shape (n_classes, n, n_targets)
        Of examples and of each of the targets' logits.
    """

    kernel: Array
    first: Array
    aligned: Array
    aligned_first: Array
    root: Array
    own: Array
    logits: Array
    aligned_logits: Array

    @property
    def n(self) -> int:
        return len(self.kernel)

    @property
    def unit(self) -> float:
        """The mean squared norm of the gradients, in which a ridge is told."""
        return float(np.trace(self.kernel)) / self.n

    def solved(self, aligned: Array, ridge: float = DAMPING) -> Array:
        """Multiply with the inverse of the kernel and a ridge."""
        return cho_solve(self._factor(ridge), aligned.astype(np.float32)).astype(float)

    @cached_property
    def inverse(self) -> Array:
        """The inverse of the kernel and the ridge."""
        return cho_solve(self._factor(DAMPING), np.eye(self.n, dtype=np.float32))

    @cached_property
    def coefficients(self) -> Array:
        """What each example's gradient in the metric does for each target."""
        return self.solved(self.aligned)

    @cached_property
    def scores(self) -> Array:
        """What each example does for each target."""
        return self.coefficients * self.root

    def _factor(self, ridge: float) -> tuple[Array, bool]:
        return _damped(self.kernel, ridge * self.unit)


def _damped(kernel: Array, ridge: float) -> tuple[Array, bool]:
    damped = kernel.copy()
    damped[np.diag_indices(len(kernel))] += ridge
    return cho_factor(damped, lower=True, overwrite_a=True)


def moments(seed: int) -> Iterator[Moment]:
    """Train once, and yield the moments at the ends of epochs 2 to 5."""
    problem = problem_of("mlp", "tuning")
    states = []

    def keep(step: int, model: torch.nn.Module) -> None:
        if step in ENDS:
            states.append({k: v.clone() for k, v in model.state_dict().items()})

    model = problem.trainer.fit(problem.everyone, seed, after=keep)
    for state in states:
        model.load_state_dict(state)
        yield moment(model, problem.data.x, problem.data.y, problem.targets)


def moment(
    model: torch.nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    targets: tuple[torch.Tensor, torch.Tensor],
) -> Moment:
    """Compare the gradients of all examples and targets at a model's parameters."""
    capture = GradientCapture(model)
    layer = next(m for m in model.modules() if isinstance(m, torch.nn.Linear))
    first = GradientCapture(model, layer.parameters())
    examples, goals = (capture.of(log_odds, *points) for points in ((x, y), targets))
    part, part_goals = (first.of(log_odds, *points) for points in ((x, y), targets))
    with torch.no_grad():
        residual = torch.sigmoid(-log_odds(model(x), y)).clamp(min=1e-6)
        logits = model(targets[0])
    root = residual.double().sqrt().numpy()[:, None]
    weight = root.astype(np.float32)
    each = []
    for c in range(logits.shape[1]):
        of = capture.of(lambda output, _, c=c: output[:, c], *targets)
        each.append(weight * examples.cross(of).numpy())
    return Moment(
        weight * examples.cross(examples).numpy() * weight.T,
        weight * part.cross(part).numpy() * weight.T,
        weight * examples.cross(goals).numpy(),
        weight * part.cross(part_goals).numpy(),
        root,
        goals.norms_squared().numpy(),
        logits.double().numpy(),
        np.stack(each),
    )


def outside(scores: Array, subset: Array) -> Array:
    """Return the scores of all examples but those of a subset."""
    return np.delete(scores, subset, axis=0)


def standardised(scores: Array, subsets: Subsets) -> Array:
    """Return mu as the library forms it from scores."""
    return np.stack(
        [
            centred(scores, s) / (outside(scores, s).std(axis=0) * len(scores) ** 0.5)
            for s in subsets
        ]
    )


def centred(scores: Array, subset: Array) -> Array:
    """Return the sum over S less that of as many typical examples."""
    typical = outside(scores, subset).mean(axis=0)
    return scores[subset].sum(axis=0) - len(subset) * typical


def over(scale: Callable[[Moment], Array]) -> Callable[[Moment, Subsets], Array]:
    """Return the form in which another scale stands for the standard deviation."""

    def form(now: Moment, subsets: Subsets) -> Array:
        return np.stack([centred(now.scores, s) for s in subsets]) / scale(now)

    return form


def laplace(now: Moment) -> Array:
    """Return the standard deviation of a target under the Laplace approximation."""
    explained = (now.aligned * now.coefficients).sum(axis=0)
    return np.sqrt(np.maximum(now.own - explained, 0.0))


def of_labels(now: Moment) -> Array:
    """Return the standard deviation if labels were drawn as the model says."""
    return np.sqrt((now.coefficients**2 * (1 - now.root**2)).sum(axis=0))


def uncentred(now: Moment, subsets: Subsets) -> Array:
    """Let nothing take the places of S."""
    return np.stack(
        [
            now.scores[s].sum(axis=0)
            / (outside(now.scores, s).std(axis=0) * now.n**0.5)
            for s in subsets
        ]
    )


def newton(now: Moment, subsets: Subsets) -> Array:
    """Leave the examples of S out of the metric, too."""
    found = []
    for s in subsets:
        # (K + ridge)^-1 of all, at S, is what leaving S out divides by.
        block = DAMPING * now.unit * now.inverse[np.ix_(s, s)].astype(float)
        moved = np.linalg.solve(block, now.root[s])[:, 0]
        rest = outside(now.scores, s)
        moved = now.coefficients[s].T @ moved - len(s) * rest.mean(axis=0)
        found.append(moved / (rest.std(axis=0) * now.n**0.5))
    return np.stack(found)


def left_out(now: Moment, subsets: Subsets) -> Array:
    """Leave each example out of its own metric."""
    kept = DAMPING * now.unit * now.inverse.diagonal().astype(float)[:, None]
    return standardised(now.scores / kept, subsets)


def changed_logits(now: Moment, subsets: Subsets) -> Array:
    """Take the margin of changed logits instead of its first-order change."""
    classes = now.logits.shape[1]
    moved = np.stack([now.solved(a) for a in now.aligned_logits]) * now.root
    y = np.asarray(problem_of("mlp", "tuning").targets[1])
    found = []
    for s in subsets:
        change = np.stack([centred(moved[c], s) for c in range(classes)], axis=1)
        scale = outside(now.scores, s).std(axis=0) * now.n**0.5
        gain = margin(now.logits, y) - margin(now.logits - change, y)
        found.append(gain / scale)
    return np.stack(found)


def margin(logits: Array, y: Array) -> Array:
    place = np.arange(len(y)), y
    others = logits.copy()
    others[place] = -np.inf
    return logits[place] - logsumexp(others, axis=1)


def weighted(
    more: Callable[[Array], Array], damping: float
) -> Callable[[Moment, Subsets], Array]:
    """Return the form with other weights in the metric: `more` times 1 - p."""

    def form(now: Moment, subsets: Subsets) -> Array:
        root = np.sqrt(np.maximum(more(now.root**2), 1e-6))
        kernel = (now.kernel * root * root.T).astype(np.float32)
        ridge = damping * float(np.trace(kernel)) / now.n
        goal = (now.aligned * root).astype(np.float32)
        solved = cho_solve(_damped(kernel, ridge), goal).astype(float)
        return standardised(solved / root * now.root, subsets)

    return form


def damped(damping: float) -> Callable[[Moment, Subsets], Array]:
    def form(now: Moment, subsets: Subsets) -> Array:
        return standardised(now.solved(now.aligned, damping) * now.root, subsets)

    return form


def layers_apart(now: Moment, subsets: Subsets) -> Array:
    """Let layers not mix in the metric; ridge and damping of each as of both."""
    goals = now.aligned_first, now.aligned - now.aligned_first
    found = np.zeros_like(now.aligned, dtype=float)
    for kernel, goal in zip((now.first, now.kernel - now.first), goals, strict=True):
        ridge = float(np.trace(kernel)) / now.n
        found += cho_solve(_damped(kernel, ridge), goal.astype(np.float32))
    return standardised(found * now.root, subsets)


def first_layer(now: Moment, subsets: Subsets) -> Array:
    ridge = DAMPING * float(np.trace(now.first)) / now.n
    solved = cho_solve(_damped(now.first, ridge), now.aligned_first.astype(np.float32))
    return standardised(solved.astype(float) * now.root, subsets)


def gradient_flow(now: Moment, subsets: Subsets) -> Array:
    """Stop gradient flow early instead of adding a ridge."""
    values, vectors = torch.linalg.eigh(torch.from_numpy(now.kernel))
    x = (values.double().clamp(min=0) / (DAMPING * now.unit)).numpy()
    filtered = -np.expm1(-x) / np.maximum(x, 1e-12)
    filtered[x < 1e-9] = 1.0
    vectors = vectors.numpy()
    turned = filtered[:, None].astype(np.float32) * (vectors.T @ now.aligned)
    return standardised((vectors @ turned).astype(float) * now.root, subsets)


FORMS: dict[str, Callable[[Moment, Subsets], Array]] = {
    BASE: lambda now, subsets: standardised(now.scores, subsets),
    "not standardised": over(lambda now: np.ones(N_TARGETS)),
    "over the spread of all scores, S among them": over(
        lambda now: now.scores.std(axis=0) * now.n**0.5
    ),
    "over the Laplace standard deviation": over(laplace),
    "over that of labels drawn anew": over(of_labels),
    "nothing takes the places of S": uncentred,
    "S left out of the metric, too": newton,
    "each example left out of its metric": left_out,
    "the margin of changed logits": changed_logits,
    "ridge 1": damped(1.0),
    "ridge 2": damped(2.0),
    "ridge 5": damped(5.0),
    "ridge 10": damped(10.0),
    "weight 1 in H (TRAK)": weighted(lambda r: 1 / r, DAMPING),
    "weights of the root of 1 - p in H": weighted(lambda r: r**-0.5, DAMPING),
    "weights (1 - p)^2 in H (Fisher)": weighted(lambda r: r, DAMPING),
    "weights p (1 - p) in H": weighted(lambda r: 1 - r, DAMPING),
    "weights p (1 - p) in H, ridge 1": weighted(lambda r: 1 - r, 1.0),
    "gradient flow stopped early": gradient_flow,
    "layers apart, ridge 1 in each": layers_apart,
    "first layer alone": first_layer,
}
EKFAC = "EK-FAC, kept gradients"
KERNEL = "as it is, kept gradients"
BOTH = "mean of EK-FAC and it, kept gradients"
LANDMARKS = "300 landmarks, kept gradients"
UNIFORM = "300 landmarks drawn uniformly, kept gradients"


@memory.cache
def of_run(seed: int) -> dict[str, Array]:
    """Return mu by every form at each moment of a run, (n_moments, n_subsets, ...)."""
    subsets = list(problem_of("mlp", "tuning").subsets.values())
    found: dict[str, list[Array]] = {name: [] for name in FORMS}
    for k, now in enumerate(moments(seed)):
        for name, form in FORMS.items():
            found[name].append(form(now, subsets))
        print(f"seed {seed}: moment {k + 1} done", flush=True)
    return {name: np.stack(each) for name, each in found.items()}


@memory.cache
def uniform(seed: int) -> Array:
    """Return mu of a run whose landmarks are drawn uniformly."""

    def drawn(squares: Array, m: int, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(np.sort(rng.choice(len(squares), m, replace=False)))

    with mock.patch("fstat_torch.curvature.construction.drawn", drawn):
        return curvature_scores.func("mlp", "tuning", seed)[""].mu


def all_forms(seeds: list[int]) -> dict[str, Array]:
    """Return mu of each run by each form, (n_runs, n_subsets, n_targets)."""
    runs = [of_run(seed) for seed in seeds]
    found = {name: np.stack([run[name].mean(0) for run in runs]) for name in FORMS}
    found["the last moment alone"] = np.stack([run[BASE][-1] for run in runs])
    found[UNIFORM] = np.stack([uniform(s) for s in seeds])
    kept = {KERNEL: {"landmarks": None}, LANDMARKS: {}, EKFAC: {"structure": "ekfac"}}
    for name, options in kept.items():
        found[name] = np.stack(
            [curvature_scores("mlp", "tuning", s, **options)[""].mu for s in seeds]
        )
    found[BOTH] = (found[KERNEL] + found[EKFAC]) / 2
    return found


def judge(mu: Array, truth: object) -> Agreement:
    return agreement(mu, truth, threshold=THRESHOLD, n_resamples=99, random_state=0)


def combined(forms: list[Array], truth: Array) -> Array:
    """Predict the truth by a sum of forms, whose weights other subsets tell."""
    fold = np.arange(len(truth)) % FOLDS
    found = np.empty_like(forms[0])
    for run in range(len(found)):
        x = np.stack([form[run] for form in forms], axis=-1)
        for k in range(FOLDS):
            learnt, own = x[fold != k], x[fold == k]
            goal = truth[fold != k].ravel()
            weights = np.linalg.lstsq(learnt.reshape(len(goal), -1), goal)[0]
            found[run, fold == k] = own @ weights
    return found


def row(name: str, found: Agreement, base: Agreement) -> str:
    gain = "-" if found is base else str(found.difference(base, "pearson"))
    values = (
        found["pearson"].value,
        found["auroc_above"].value,
        found["auroc_below"].value,
        found["consistency_spearman"].value,
    )
    shown = " | ".join(f"{value:.3f}" for value in values)
    slope = found["slope"].value
    slope = f"{slope:.2f}" if name != "not standardised" else "-"
    return f"| {name} | {shown} | {slope} | {gain} |"


def main() -> None:
    torch.set_num_threads(1)
    problem = problem_of("mlp", "tuning")
    truth = problem.truth()
    first = problem.run_seeds[0]
    forms = all_forms([first + k for k in range(N_RUNS)])
    mu = truth.mu_.reshape(len(problem.subsets), -1)
    ridges = ["ridge 1", BASE, "ridge 10"]
    forms["ridges of 1, 3 and 10, combined"] = combined([forms[k] for k in ridges], mu)
    forms["all of the above, combined"] = combined(list(forms.values()), mu)
    judged = {name: judge(each, truth) for name, each in forms.items()}
    head = "| form | Pearson | AUROC + | AUROC - | runs | slope | gain in Pearson |"
    rows = [row(name, found, judged[BASE]) for name, found in judged.items()]
    lines = "\n".join([head, "|---" * 7 + "|", *rows])
    fill(PAGE, "forms", lines, __file__, *TABLE)


if __name__ == "__main__":
    main()
