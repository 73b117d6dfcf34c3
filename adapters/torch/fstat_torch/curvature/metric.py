"""A curvature metric that the training run builds by itself: what users ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..sampling.aligned_steps import AlignedSteps
from ..sampling.metrics import NAMED, Plain
from ..sampling.recorder import Recorder
from ..sampling.reference_snapshots import ReferenceSnapshots
from ..sampling.run import Run
from .options import Options
from .recorder import KeptGradients
from .reference_scores import CurvatureScores


@dataclass(frozen=True)
class Curvature(Options):
    r"""A ridge-damped curvature metric, to be given to `SingleRunSampler`.

    Each example's gradient is kept as it was when last in a batch. At a snapshot they
    make up the metric H, and each example i is scored for each target z by
    :math:`g_z' (H + \lambda I)^{-1} g_i`, where the gradient of the target is that of
    the moment. There is no further pass over the data.

    Snapshots are taken at the end of each pass over the examples but the first, after
    which gradients are still those of a model that knew nothing; in a run of one pass,
    when it is asked for observations. When there are 12, every other one is let go, and
    from then on twice as many passes go by between two of them; where 1 - p is known,
    there are no more than 4 while less than a tenth of it is left. Whoever calls
    `SingleRunSampler.snapshot` chooses the moments: those before the first call are let
    go.

    Parameters
    ----------
    n_examples : int, optional
        Number of training examples; they are numbered from 0. By default as many as
        are met. With a `path` it must be given.
    kind : {"auto", "residual", "gauss-newton", "fisher"}, default="auto"
        What gradients H is the sum of outer products of; see Notes. ``"auto"``: the
        kind that the loss asks for: ``"residual"`` where the model returns one row of
        outputs an example, and the loss does not change if the same is added to all of
        a row, as of classes; ``"fisher"`` for other losses. ``"fisher"``:
        those of the losses; any loss, language models included. ``"gauss-newton"``:
        the same over r, the size of the loss's own gradient at the model's output,
        which for cross-entropy is 1 - p: what remains is the gradient of the margin
        log(p / (1 - p)), as in TRAK [1]_. ``"residual"``: over the root of r. For the
        last two the model must return one row of outputs an example.
    structure : {"full", "ekfac"}, default="full"
        ``"full"``: H as it is, by inner products with the landmarks. ``"ekfac"``: H is
        taken to be diagonal within each layer, in the eigenbases of the second moments
        of its inputs and of the gradients at its outputs (EK-FAC [2]_ [3]_); see Notes.
    damping : float, optional
        The ridge :math:`\lambda`, in units of the mean squared norm of the gradients
        in H. By default :math:`2 \rho / (1 - \rho)` for ``"residual"``, where
        :math:`\rho` is the share of what the run had to learn that is left, 3 for
        ``"gauss-newton"``, 1 for ``"fisher"``, and 0.1 for the structure ``"ekfac"``;
        see Notes.
    landmarks : int or None, default=300
        Examples whose gradients span the metric, drawn anew at each snapshot in
        proportion to the gradients' squared norms. None: all of them, by an n x n
        matrix, which is exact. ``"ekfac"`` has none.
    projection : int, optional
        Numbers kept of each unit's gradient, by a random two-sided sketch; by default
        all of it, factored where that is exact. Not for ``"ekfac"``.
    trace : bool, default=False
        Whether the alignments of every step are recorded too, as without a metric.
        This costs the targets' gradients at every step.
    path : path-like, optional
        Folder of memory-mapped files for the kept gradients, and of their state at
        checkpoints; by default they are kept in memory and are part of the sampler's
        `state_dict`. A run that does not go on from a checkpoint writes it over.
    random_state : int, default=0
        Seed of sketches and landmarks. The generators of torch are not touched.

    Raises
    ------
    ValueError
        If an argument is not as described.

    See Also
    --------
    SingleRunSampler : Takes it as its `metric`; ``"curvature"`` stands for it.

    Notes
    -----
    A statistic is one of many: influence that another one shows and this one does not
    is there all the same.

    The curvature of cross-entropy weighs outer products of margins' gradients by
    p (1 - p), which leaves out examples that the model gets wrong as well as those it
    is sure of. ``"residual"`` weighs them by 1 - p, which is as much where the model is
    sure and keeps the wrong ones, such as mislabelled examples; ``"gauss-newton"`` by
    1; ``"fisher"`` by (1 - p)^2.

    A run that stops early has learnt what its largest eigenvalues let it, as ridge
    regression does; the less it has learnt, the larger is the ridge that goes with it
    [4]_. :math:`\rho` is the mean of 1 - p at the snapshot over that of the first 256
    examples of the run, and of a `reference` over that of equal probabilities. It is
    kept between 0.01 and 0.99.

    A pass is over after as many visits to examples as there are examples; only visits
    of steps that are recorded count.

    The defaults of `kind`, `damping` and `landmarks` were chosen on digits of MNIST and
    perceptrons, against retraining; other data and models may ask for others.

    References
    ----------
    .. [1] S. M. Park, K. Georgiev, A. Ilyas, G. Leclerc, A. Madry, "TRAK: attributing
       model behavior at scale", ICML 2023, section 3.
    .. [2] T. George, C. Laurent, X. Bouthillier, N. Ballas, P. Vincent, "Fast
       approximate natural gradient descent in a Kronecker-factored eigenbasis",
       NeurIPS 2018.
    .. [3] R. Grosse et al., "Studying large language model generalization with
       influence functions", arXiv:2308.03296, 2023.
    .. [4] A. Ali, J. Z. Kolter, R. J. Tibshirani, "A continuous-time view of early
       stopping for least squares regression", AISTATS 2019.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from fstat import FInfluence
    >>> from fstat_torch import Curvature, SingleRunSampler
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.randn(200, 5), torch.randint(2, (200,))
    >>> model = nn.Linear(5, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> sampler = SingleRunSampler(
    ...     model, targets=(x[:2], y[:2]), metric=Curvature(), optimizer=optimizer
    ... )
    >>> for epoch in range(4):
    ...     for index in torch.randperm(200).split(10):
    ...         optimizer.zero_grad()
    ...         with sampler.step(index):
    ...             nn.functional.cross_entropy(model(x[index]), y[index]).backward()
    ...         optimizer.step()
    >>> sampler.snapshots
    Snapshots(3 of 200 examples, 2 targets)
    >>> observations = sampler.observations([[0, 1, 2], [3, 4]])
    >>> FInfluence().fit(observations).mu_.shape
    (4,)
    """

    @property
    def alignment(self) -> str:
        """In what alignments of steps are recorded, as the trace says."""
        return "plain"

    def recorders(self, run: Run) -> list[Recorder]:
        """Return who records a run in this metric.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        list of Recorder
            Who keeps gradients, or takes those of a reference; and the trace, if that
            is asked for.

        Raises
        ------
        ValueError
            If parameters are sharded, or there is no use for something.
        """
        self._refuse_idle(run)
        recorders: list[Recorder] = []
        if run.reference is None:
            recorders.append(KeptGradients(self, run))
        else:
            recorders.append(ReferenceSnapshots(run, CurvatureScores(self, run)))
        if self.trace:
            recorders.append(AlignedSteps(run, Plain().comparison(run)))
        return recorders

    def kept_in(self, folder: Path | None) -> Curvature:
        """Return the metric that keeps gradients in a folder, and traces steps too.

        Parameters
        ----------
        folder : Path or None
            The folder, unless the metric has a `path`; None: they are kept in memory.

        Returns
        -------
        Curvature
            With ``trace=True``.
        """
        path = folder if self.path is None else self.path
        return replace(self, trace=True, path=path)

    def _refuse_idle(self, run: Run) -> None:
        if run.is_sharded:
            raise ValueError(
                "`metric` Curvature needs whole parameters on each process, got "
                "sharded ones: use 'plain', or train with DistributedDataParallel."
            )
        if run.storage is not None and run.reference is None and not self.trace:
            raise ValueError(
                "`storage` is where the trace goes, and `metric` records none: use "
                "Curvature(..., trace=True), or Curvature(..., path=...) for the kept "
                "gradients."
            )
        if run.asked.projection is not None and not self.trace:
            raise ValueError(
                "`projection` is of the alignments in a trace, and `metric` records "
                "none: use Curvature(..., projection=...), or leave it out."
            )


NAMED["curvature"] = Curvature()
