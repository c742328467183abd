"""How well scores agree with people's opinions."""

from iqa_core.agreement.measures import MIN_PAIRS, Floats, auc, kendall, pearson, spearman

__all__ = ["MIN_PAIRS", "Floats", "auc", "kendall", "pearson", "spearman"]
