"""Means, proportions, differences, slopes, correlations and areas, always as a Reading with a 95 %
interval.

The interval suits the quantity: Student's t over seeds, Wilson or Clopper–Pearson for proportions,
DeLong and Newcombe for areas under the ROC curve, the bootstrap for anything without a formula.
`tests/test_stats_coverage.py` simulates how often each holds the truth: at least 93 % for normal,
skewed and bounded data at n = 3, 5, 10 and 50, with the exceptions that the docstrings name
(`python benchmarks/coverage.py` prints the table).
"""

from unseen.stats.areas import FEW, auc, auc_difference, auc_shares, crossed_auc
from unseen.stats.blocks import over_blocks
from unseen.stats.grid import grid_bootstrap
from unseen.stats.interquartile import interquartile, interquartile_mean
from unseen.stats.means import (
    average_readings,
    bootstrap,
    crossed_mean,
    difference,
    mean,
    mean_proportion,
    mean_score,
    median,
    of_scores,
    proportion,
    welch,
)
from unseen.stats.quantiles import LEVEL, t_quantile, z_quantile
from unseen.stats.readings import (
    average,
    holm,
    independent_difference,
    lowest,
    lowest_of,
    two_sided_p,
    widen,
)
from unseen.stats.relations import rank_correlation, slope
from unseen.stats.thresholds import Threshold, fewest_scores, threshold_at

__all__ = [
    "FEW",
    "LEVEL",
    "Threshold",
    "auc",
    "auc_difference",
    "auc_shares",
    "average",
    "average_readings",
    "bootstrap",
    "crossed_auc",
    "crossed_mean",
    "difference",
    "fewest_scores",
    "grid_bootstrap",
    "holm",
    "independent_difference",
    "interquartile",
    "interquartile_mean",
    "lowest",
    "lowest_of",
    "mean",
    "mean_proportion",
    "mean_score",
    "median",
    "of_scores",
    "over_blocks",
    "proportion",
    "rank_correlation",
    "slope",
    "t_quantile",
    "threshold_at",
    "two_sided_p",
    "welch",
    "widen",
    "z_quantile",
]
