"""The error for a run that would exceed a budget of its key."""

import math

from gen_orchestrator.domain.budgets import Exhausted
from gen_worker.clock import utc_text
from gen_worker.contract.problem import SpentBudget
from gen_worker.http.asgi import RequestError

MAX_RETRY_AFTER_S = 86400


class BudgetError(RequestError):
    """429 `budget_exhausted` with the budget, its limit, what is used, and when it has room again."""

    def __init__(self, found: Exhausted, unix_s: float) -> None:
        free_in_s = found.free_in_s
        after_s = 1 if free_in_s is None else min(max(1, math.ceil(free_in_s)), MAX_RETRY_AFTER_S)
        super().__init__(429, "budget_exhausted", found.detail, headers={"retry-after": str(after_s)})
        free_at = None if free_in_s is None else utc_text(unix_s + free_in_s)
        self.budget = SpentBudget(found.budget, found.limit, round(found.used, 3), free_at)
