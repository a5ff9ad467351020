"""What samples must be distributed like, by architecture, and whether they are.

`law(denoiser, sigmas, solver)` predicts; `Law.check(samples)` judges. In NumPy float64 on the host,
and without the sampler, so that agreement is evidence: laws of atoms carry draws of their own
through the grid.
"""

from jdiff.theory.atoms import AtomsLaw
from jdiff.theory.checks import CheckRow, LawCheck
from jdiff.theory.gaussian import GaussianLaw
from jdiff.theory.laws import Law, continuous_law, law
from jdiff.theory.pushforward import PushForwardLaw
from jdiff.theory.rank import check_rank, jacobian_rank, jacobian_spectrum, local_spectrum
from jdiff.theory.regression import RegressionLaw

__all__ = [
    "AtomsLaw",
    "CheckRow",
    "GaussianLaw",
    "Law",
    "LawCheck",
    "PushForwardLaw",
    "RegressionLaw",
    "check_rank",
    "continuous_law",
    "jacobian_rank",
    "jacobian_spectrum",
    "law",
    "local_spectrum",
]
