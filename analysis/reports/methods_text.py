"""How a report was made: its measures and tests, in words."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.claims.conclusions import Conclusion
from analysis.claims.procedures import Anytime, FixedNumber

METHODS = """\
A loss is the mean over a split of -ln p of the next character, in nats. Training losses are those
after the last step, of the whole split; those before, which MLflow charts, are by default of its
first characters, as many as the validation split has. Each difference is taken
between trials of the same seed, which drew the same batches where their block_size agrees and
started from the same values where their shapes do. A claim rests on one-sided paired t-tests at 5 %
(scipy); the interval of a difference is that of the same test (two-sided 90 %), and where several
differences decide, intervals that hold for all of them at once (Bonferroni) stand beside it. A
claim that asks which level is best chooses it by the losses that test it, so each level is held to
5 % divided by their number, and intervals are as much wider. "In every cell" is an
intersection-union test: each cell has to pass by itself, without correction. Statements about
single cells, and that some cell contradicts, are corrected by Holm's procedure (statsmodels).
"Equal" takes two one-sided tests against the margin. A trend stated beforehand takes Page's test
over seeds (scipy), and a paired t-test of the line through its levels. Losses that are rounded may
be off by half of their last digit: each test takes the worst, and no spread is taken to be less
than that of rounding. Whether the differences are normal, as the t-test wants, is asked of all
differences of a claim together (Shapiro and Wilk's test, combined by Fisher's method; scipy); where
they do not look so, or have no spread, the exact sign-flip permutation test (scipy) has to agree,
which cannot be below 1/2^n with n seeds. From ten seeds on the BCa bootstrap interval (scipy, 95 %,
9,999 resamples, fixed seed) is shown too. The number of seeds that would be needed is a forecast
for a chance of 80 %, were effects and spreads as they look now. SUPPORTED: the tests above show it.
NOT SUPPORTED: they show that it fails in some cell, or that the difference there is below the
margin. UNDERPOWERED: neither. A difference of which a trial is missing, failed, or was stopped
early decides nothing, and trials that a search picked are no evidence.
"""
ONE_LOOK = "A verdict is for one look at a number of seeds that was fixed beforehand.\n"
BORROWED = """
Variances are borrowed across the differences of a claim, as its file asks for: the t-tests and
their intervals are moderated (Smyth 2004). The forecast of seeds does not borrow.
"""
SHARED = """
Variances are borrowed across the differences of a claim, as its file asks for: all of them are
taken to have the same one, and independent noise. The test of each also uses the residuals of the
first two pairs of the others that share no trial with it or with each other; of a difference that
spreads plainly more (F test at 1 %) the smaller e-value of both tests counts. The forecast of seeds
does not borrow.
"""
ANY_LOOK = """
The verdicts of this report hold at any look. In place of the t-test and the sign-flip test, each
one-sided test has an e-value after each seed: {test}. Under the hypothesis that it tests, the
largest of them reaches 1/error in at most that share of sweeps, however many seeds follow (Ville's
inequality), so 1 / (largest e-value so far) takes the place of the p-value in all that is said
above, and intervals are those of confidence sequences. In place of Page's test the orders of the
levels are weighed against all orders being equally likely. Pairs count in the order of their seeds,
up to the first that is missing. Normality is not tested, as a test chosen by the result would not
hold.
"""
T_TEST = (
    "the ratio of the likelihoods of what is left of the differences when their scale is unknown"
    " (the right Haar t test: Pérez-Ortiz et al. 2024; Wang and Ramdas 2024), averaged over a prior"
    " of mean / standard deviation (half-normal with a standard deviation of 2.5, to three parts in"
    " ten of 25), and divided by 0.64 from 2 on, as it jumps past its limit"
)
BOUNDED_TEST = (
    "the average wealth of bets on the next difference (Waudby-Smith and Ramdas 2024), taking no"
    " difference to be larger than {bound:g} nats, as the claims file says, whatever its noise"
)


def methods(conclusions: Sequence[Conclusion]) -> str:
    """Return how losses, differences and verdicts of these conclusions were found."""
    procedure = conclusions[0].decision.procedure if conclusions else None
    if isinstance(procedure, Anytime):
        bound = procedure.bound
        test = T_TEST if bound is None else BOUNDED_TEST.format(bound=bound)
        return METHODS + ANY_LOOK.format(test=test) + (SHARED if procedure.borrows else "")
    borrows = isinstance(procedure, FixedNumber) and procedure.borrows
    return METHODS + ONE_LOOK + (BORROWED if borrows else "")
