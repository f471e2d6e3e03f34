"""The smallest model within a budget: trials over recipes, cached and resumable, here or spread over Ray.

Example:
    >>> found = search_workbench(open_workbench("digits.keras", evaluation="test.npz"), Budget(max_drop=0.01))
    >>> if found.chosen is None:
    ...     raise found.refusal()
    >>> found.bundle.save("digits-1.edge")
"""

from convert.search.front import pareto_front
from convert.search.outcome import as_data, as_rows, as_text
from convert.search.ray_runner import RayRunner, WorkbenchSpec
from convert.search.runner import SequentialRunner, TrialRunner
from convert.search.search import SearchResult, search
from convert.search.space import LayerChoice, SearchSpace
from convert.search.store import TrialStore, default_folder
from convert.search.trial import Trial, TrialStatus, TryRecipe
from convert.search.workbench_search import search_workbench

__all__ = [
    "LayerChoice",
    "RayRunner",
    "SearchResult",
    "SearchSpace",
    "SequentialRunner",
    "Trial",
    "TrialRunner",
    "TrialStatus",
    "TrialStore",
    "TryRecipe",
    "WorkbenchSpec",
    "as_data",
    "as_rows",
    "as_text",
    "default_folder",
    "pareto_front",
    "search",
    "search_workbench",
]
