"""The forms of claims: a new one is a file here and a line in FORMS.

order       levels of a factor, each better than the next
monotone    better at each step to a higher level
trend       better as the level goes up, as a whole
best        one level better than every other
equal       levels that differ by less than the margin
better      the trials of one selection better than those of another
factor      what the forms with a factor share
"""

from __future__ import annotations

from analysis.claims.claim import Claim
from analysis.claims.forms.best import Best
from analysis.claims.forms.better import Better
from analysis.claims.forms.equal import Equal
from analysis.claims.forms.monotone import Monotone
from analysis.claims.forms.order import Order
from analysis.claims.forms.trend import Trend

FORMS: tuple[type[Claim], ...] = (Better, Order, Monotone, Trend, Best, Equal)
